"""The measures of a trained decoder's graphs, as one record that the card is written from."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
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


def measure(prepared: Prepared, work: Path, storages: Iterable[Storage], threads: int) -> dict[str, Any]:
    """Score the trigram and the graphs in `work` on the held-out stream; compare fp32's text with PyTorch's.

    A graph's drift is the largest change of a logit when tokens are fed one at a time."""
    lengths = tokenizer.token_bytes(prepared.tokenizer)
    stream = prepared.held_out
    trigram = baseline.fit(prepared.train_plain, len(lengths))
    reference = model.load(work / "weights")
    graphs = {}
    for storage in storages:
        folder = work / "graphs" / storage
        graph = evaluate.Graph(folder, threads)
        graphs[storage.value] = {
            **of_score(evaluate.score(graph.costs(stream), stream, lengths)),
            "size_bytes": export.size_bytes(folder),
            "drift": _drift(graph, stream[:DRIFT_TOKENS]),
        }
    prompts = [prepared.tokenizer.encode(prompt).ids for prompt in GREEDY_PROMPTS]
    exact = evaluate.Graph(work / "graphs" / Storage.FP32, threads)
    equal = [list(exact.generate(ids, max_tokens=GREEDY_TOKENS)) == _greedy(reference, ids) for ids in prompts]
    return {
        "trigram": of_score(evaluate.score(trigram.nats(stream), stream, lengths)),
        "graphs": graphs,
        "greedy_equal": sum(equal),
        "greedy_prompts": len(prompts),
        "configuration": reference.config.to_dict(),
        "weights": model.parameters(reference),
    }


def of_score(score: Score) -> dict[str, Any]:
    return asdict(score) | {"perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte}


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
