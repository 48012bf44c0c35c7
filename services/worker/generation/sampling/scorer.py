"""Log-probabilities of given tokens and of the best ones, on the device where the logits lie.

They are the model's own: of the logits as they come, before temperature, penalties, biases and constraints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from services.worker.generation.sampling.graph import GraphText, model
from services.worker.session import Buffer, open_session


@dataclass(frozen=True, slots=True)
class Score:
    """Of one token: its log-probability, and (token id, log-probability) of the best ones, the best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Scorer:
    """Over the rows of `logits` [rows, 1, vocabulary]."""

    def __init__(self, logits: Buffer, *, threads: int) -> None:
        self._logits = logits
        built = _build(logits.element_type, logits.shape[2])
        self._session = open_session(built, device=logits.device, threads=threads, strict=False)

    def score(self, rows: Sequence[int], token_ids: Sequence[int], top: Sequence[int]) -> list[Score]:
        """A score for each row: of its token, with so many of the best beside it."""
        binding = self._session.io_binding()
        self._logits.bind_input(binding, "logits", 0, max(rows) + 1)
        most = min(max(*top, 1), self._logits.shape[2])
        binding.bind_cpu_input("row", np.array(rows, np.int64))
        binding.bind_cpu_input("token", np.array(token_ids, np.int64)[:, np.newaxis])
        binding.bind_cpu_input("candidates", np.array([most], np.int64))
        for name in ("logprob", "top_logprob", "top_token"):
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        own, best, best_ids = (output.tolist() for output in binding.copy_outputs_to_cpu())
        return [
            Score(token_id, logprob[0], tuple(zip(ids[:count], values[:count], strict=True)))
            for token_id, logprob, ids, values, count in zip(token_ids, own, best_ids, best, top, strict=True)
        ]


def _build(logits_type: int, vocabulary_size: int) -> bytes:
    op = GraphText("score")
    inputs: list[Sequence[Any]] = [
        ("logits", logits_type, ["rows", 1, vocabulary_size]),
        ("row", TensorProto.INT64, ["scores"]),
        ("token", TensorProto.INT64, ["scores", 1]),
        ("candidates", TensorProto.INT64, [1]),
    ]
    picked = op("Gather", op("Squeeze", "logits", op.constant([1])), "row")
    logprobs = op("LogSoftmax", op("Cast", picked, to=TensorProto.FLOAT), axis=1)
    op.name("GatherElements", [logprobs, "token"], ["logprob"], axis=1)
    op.name("TopK", [logprobs, "candidates"], ["top_logprob", "top_token"], axis=1)
    outputs: list[Sequence[Any]] = [
        ("logprob", TensorProto.FLOAT, ["scores", 1]),
        ("top_logprob", TensorProto.FLOAT, ["scores", "candidates"]),
        ("top_token", TensorProto.INT64, ["scores", "candidates"]),
    ]
    return model(op.graph("scoring", inputs, outputs))
