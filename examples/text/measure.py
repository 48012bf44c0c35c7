"""All the measures of a trained model, as one record that the card is written from."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.text import baseline, evaluate, export, model, tokenizer
from examples.text.evaluate import Score
from examples.text.export import Storage
from examples.text.prepare import Prepared

GREEDY_PROMPTS = ("def ", "import os\n", "class Foo(", "for i in range(", "if __name__ == ", "    def __init__(self")
GREEDY_TOKENS = 48
DRIFT_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A graph: its score, its folder's size, and the largest change of a logit when tokens are fed one at a time."""

    score: Score
    size_bytes: int
    drift: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What the card says. `storage` is the one that is shipped; `graphs` has a key for each storage."""

    storage: str
    trigram: Score
    graphs: dict[str, Measured]
    greedy_equal: int
    greedy_prompts: int
    corpus: dict[str, int]
    history: dict[str, Any]
    configuration: dict[str, Any]
    weights: int
    python: str
    threads: int

    def facts(self) -> dict[str, Any]:
        """The fields of the card's text, by name."""
        shape, recipe, run = self.configuration, self.history["recipe"], self.history
        return {
            "layers": shape["num_hidden_layers"],
            "hidden": shape["hidden_size"],
            "heads": shape["num_attention_heads"],
            "kv_heads": shape["num_key_value_heads"],
            "head_size": shape["head_dim"],
            "intermediate": shape["intermediate_size"],
            "vocabulary": shape["vocab_size"],
            "context": shape["max_position_embeddings"],
            "weights": self.weights,
            "python": self.python,
            "threads": self.threads,
            "steps": run["steps"],
            "plans": "; ".join(f"{length:,} from step {first:,} on" for first, length in run["plans"]),
            "step_tokens": recipe["step_tokens"],
            "epochs": run["tokens"] / self.corpus["train_tokens"],
            "minutes": run["seconds"] / 60,
            "rate": run["tokens"] / run["seconds"],
            "storage": self.storage,
            "size_mb": self.graphs[self.storage].size_bytes / 1e6,
            "scored_tokens": self.trigram.tokens,
            "scored_bytes": self.trigram.text_bytes,
            **self.corpus,
        }

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))


def load(path: Path) -> Measures:
    """Read what `Measures.save` wrote."""
    record = json.loads(path.read_text())
    graphs = {
        name: Measured(score=Score(**graph["score"]), size_bytes=graph["size_bytes"], drift=graph["drift"])
        for name, graph in record.pop("graphs").items()
    }
    return Measures(graphs=graphs, trigram=Score(**record.pop("trigram")), **record)


def measure(prepared: Prepared, work: Path, storage: Storage, threads: int) -> Measures:
    """Score the trigram and the graphs in `work` on the held-out stream; compare fp32's text with PyTorch's."""
    lengths = tokenizer.token_bytes(prepared.tokenizer)
    stream = prepared.held_out
    trigram = baseline.fit(prepared.train_plain, len(lengths))
    reference = model.load(work / "weights")
    graphs: dict[str, Measured] = {}
    for kind in Storage:
        folder = work / "graphs" / kind
        graph = evaluate.Graph(folder, threads)
        graphs[kind.value] = Measured(
            score=evaluate.score(graph.costs(stream), stream, lengths),
            size_bytes=export.size_bytes(folder),
            drift=_drift(graph, stream[:DRIFT_TOKENS]),
        )
    prompts = [prepared.tokenizer.encode(prompt).ids for prompt in GREEDY_PROMPTS]
    exact = evaluate.Graph(work / "graphs" / Storage.FP32, threads)
    return Measures(
        storage=storage.value,
        trigram=evaluate.score(trigram.nats(stream), stream, lengths),
        graphs=graphs,
        greedy_equal=sum(
            list(exact.generate(ids, max_tokens=GREEDY_TOKENS)) == _greedy(reference, ids) for ids in prompts
        ),
        greedy_prompts=len(prompts),
        corpus=prepared.counts,
        history=json.loads((work / "history.json").read_text()),
        configuration=reference.config.to_dict(),
        weights=model.parameters(reference),
        python=platform.python_version(),
        threads=threads,
    )


def _drift(graph: evaluate.Graph, tokens: tokenizer.Tokens) -> float:
    at_once, _ = graph.run(tokens[None])
    largest, past = 0.0, None
    for place, token in enumerate(tokens):
        logits, past = graph.run(np.array([[token]]), past)
        largest = max(largest, float(abs(logits[0, 0] - at_once[0, place]).max()))
    return largest


def _greedy(reference: Any, prompt: Sequence[int]) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + GREEDY_TOKENS:
        with torch.no_grad():
            token = int(reference(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == tokenizer.SEPARATOR_ID:
            break
        ids.append(token)
    return ids[len(prompt) :]
