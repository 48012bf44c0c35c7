"""Measures of a graph, taken through ONNX Runtime: perplexity, bits per byte, and completions.

Every token of the held-out stream but the first is predicted once. The graph sees windows of `CONTEXT_TOKENS`, each on
its own; the trigram sees its two tokens across the borders of windows. Bits per byte divide the same sum by the bytes
of text of the same tokens.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from examples.text.tokenizer import CONTEXT_TOKENS, SEPARATOR_ID, Tokens, token_bytes

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The cost of a text: `nats` in sum, over so many predicted tokens, which stand for so many bytes."""

    nats: float
    tokens: int
    text_bytes: int

    @property
    def perplexity(self) -> float:
        """exp of the mean cost of a token."""
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """The cost in bits, for each byte of text; it does not depend on the tokenizer."""
        return self.nats / math.log(2) / self.text_bytes


def score(costs: npt.NDArray[np.floating], stream: Tokens, token_bytes: Tokens) -> Score:
    """Sum up `costs` [len(stream) - 1], nats for each token of `stream` but the first."""
    return Score(nats=float(costs.sum()), tokens=len(costs), text_bytes=int(token_bytes[stream[1:]].sum()))


class Graph:
    """A decoder graph in the dialect of the module docstring of `export`, run with a cache that grows."""

    def __init__(self, folder: Path, threads: int = 2) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.past_names = [value.name for value in self.session.get_inputs() if value.name.startswith("past_")]
        decoder = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
        self.past_shape: tuple[int, int] = (decoder["num_key_value_heads"], decoder["head_size"])
        self.cache_type: type[np.generic] = np.float32

    def run(self, ids: Tokens, past: Sequence[Floats] | None = None) -> tuple[Floats, list[Floats]]:
        """Feed `ids` [batch, new] behind `past`; returns logits [batch, new, vocabulary] and the next call's past."""
        heads, size = self.past_shape
        if past is None:
            past = [np.zeros((len(ids), heads, 0, size), self.cache_type)] * len(self.past_names)
        mask = np.ones((len(ids), past[0].shape[2] + ids.shape[1]), np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, **dict(zip(self.past_names, past, strict=True))}
        logits, *present = self.session.run(None, feeds)
        return logits, present

    def costs(self, stream: Tokens) -> Floats:
        """-ln P of every token of a stream but the first, [len - 1], in windows of `CONTEXT_TOKENS`."""
        given, wanted = stream[:-1], stream[1:]
        windows = [slice(start, start + CONTEXT_TOKENS) for start in range(0, len(given), CONTEXT_TOKENS)]
        return np.concatenate([_costs(self.run(given[None, window])[0][0], wanted[window]) for window in windows])

    def generate(
        self, prompt: Sequence[int], *, max_tokens: int, temperature: float = 0, top_p: float = 1, seed: int = 0
    ) -> Iterator[int]:
        """Token ids behind `prompt`, up to the separator.

        Greedy at temperature 0, else drawn from the nucleus of mass `top_p` (Holtzman et al. 2020).
        """
        random = np.random.default_rng(seed)
        ids, past = np.array([prompt], np.int64), None
        for _ in range(min(max_tokens, CONTEXT_TOKENS - len(prompt))):
            logits, past = self.run(ids, past)
            token = _draw(logits[0, -1], temperature, top_p, random)
            if token == SEPARATOR_ID:
                return
            yield token
            ids = np.array([[token]], np.int64)


def of_texts(graph: Graph, words: Any, texts: Sequence[str]) -> Score:
    """Of each text on its own, which has to fit into the context. Its first token, which follows nothing, is free."""
    lengths, scores = token_bytes(words), []
    for text in texts:
        stream = np.array(words.encode(text, add_special_tokens=False).ids, np.int64)
        scores.append(score(graph.costs(stream), stream, lengths))
    return Score(
        nats=sum(one.nats for one in scores),
        tokens=sum(one.tokens for one in scores),
        text_bytes=sum(one.text_bytes for one in scores),
    )


def _costs(logits: Floats, tokens: Tokens) -> Floats:
    peak = logits.max(axis=-1)
    total = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=-1))
    costs: Floats = total - logits[np.arange(len(tokens)), tokens]
    return costs


def _draw(logits: Floats, temperature: float, top_p: float, random: np.random.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    weights = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    order = np.argsort(-weights)
    cumulative = np.cumsum(weights[order] / weights.sum())
    kept = int(np.searchsorted(cumulative, top_p)) + 1
    place = int(np.searchsorted(cumulative[:kept], random.random() * cumulative[kept - 1], side="right"))
    return int(order[min(place, kept - 1)])
