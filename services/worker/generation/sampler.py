"""From logits to tokens, on the device where the logits lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from services.worker.generation import sampling_graph
from services.worker.generation.draws import uniforms
from services.worker.generation.rows import Rows
from services.worker.generation.sampling_graph import ATTEMPTS, INVALID
from services.worker.session import Buffer, open_session

BAN = np.float32(-1e30)

__all__ = ["BAN", "INVALID", "Sampler"]


@dataclass(frozen=True, slots=True)
class Variant:
    """What a step's rows ask for together; each variant has its own graph, so that nobody pays for what nobody uses."""

    greedy: bool
    top_k: bool
    banned: bool


class Sampler:
    """Draws for the first rows of `logits` [slots, 1, vocabulary]. Rows that are all greedy take an ArgMax alone."""

    def __init__(self, logits: Buffer, *, threads: int) -> None:
        self._logits, self._threads = logits, threads
        self._vocabulary_size = logits.shape[2]
        self._tokens = np.zeros(logits.shape[0], np.int64)
        self._sessions: dict[Variant, ort.InferenceSession] = {}
        self._bindings: dict[tuple[Variant, int], ort.IOBinding] = {}

    def sample(self, rows: Rows, count: int, bans: Sequence[tuple[int, Sequence[int]]] = ()) -> npt.NDArray[np.int64]:
        """The token of each of the first `count` rows, or `INVALID` where the logits are not finite; good until the
        next call. `bans`: (row, token ids that cannot be drawn)."""
        inputs = _ban_inputs(bans) if bans else {}
        largest = 0
        if drawn := bool(rows.temperature[:count].any()):
            largest = min(int(rows.top_k[:count].max()), self._vocabulary_size)
            inputs |= _draw_inputs(rows, count)
        if largest:
            inputs["top_k"] = np.minimum(rows.top_k[:count], self._vocabulary_size)
            inputs["candidates"] = np.array([largest], np.int64)
        self._run(Variant(not drawn, largest > 0, bool(bans)), count, inputs)
        return self._tokens[:count]

    def _run(self, variant: Variant, count: int, inputs: dict[str, npt.NDArray[Any]]) -> None:
        binding = self._bindings.get((variant, count)) or self._bind(variant, count)
        for name, value in inputs.items():
            binding.bind_cpu_input(name, value)
        self._sessions[variant].run_with_iobinding(binding)

    def _bind(self, variant: Variant, count: int) -> ort.IOBinding:
        if variant not in self._sessions:
            self._sessions[variant] = self._open(variant)
        binding = self._bindings[variant, count] = self._sessions[variant].io_binding()
        self._logits.bind_input(binding, "logits", 0, count)
        binding.bind_output("token", "cpu", 0, np.int64, (count,), self._tokens.ctypes.data)
        return binding

    def _open(self, variant: Variant) -> ort.InferenceSession:
        model = sampling_graph.build(
            logits_type=self._logits.element_type,
            vocabulary_size=self._vocabulary_size,
            greedy=variant.greedy,
            top_k=variant.top_k,
            banned=variant.banned,
        )
        return open_session(model, device=self._logits.device, threads=self._threads, strict=False)


def _draw_inputs(rows: Rows, count: int) -> dict[str, npt.NDArray[Any]]:
    return {
        "uniform": uniforms(rows.seed[:count], rows.position[:count], ATTEMPTS),
        "temperature": rows.temperature[:count],
        "top_p": rows.top_p[:count],
        "min_p": rows.min_p[:count],
    }


def _ban_inputs(bans: Sequence[tuple[int, Sequence[int]]]) -> dict[str, npt.NDArray[Any]]:
    index = np.array([(row, token_id) for row, token_ids in bans for token_id in token_ids], np.int64)
    return {"ban_index": index, "ban_bias": np.full(len(index), BAN)}
