"""From logits to tokens, on the device where the logits lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from services.worker.generation.rows import Rows
from services.worker.generation.sampling import graph as sampling_graph
from services.worker.generation.sampling.draws import uniforms
from services.worker.generation.sampling.edits import Edits
from services.worker.generation.sampling.graph import ATTEMPTS, INVALID
from services.worker.session import Buffer, open_session

__all__ = ["INVALID", "Sampler"]


@dataclass(frozen=True, slots=True)
class Variant:
    """What a step's rows ask for together; each variant has its own graph, so that nobody pays for what nobody uses."""

    greedy: bool
    top_k: bool
    min_p: bool
    edited: bool


class Sampler:
    """Draws for the first rows of `logits` [rows, 1, vocabulary]. Rows that are all greedy take an ArgMax alone; on the
    host numpy does that in a third of the time of ONNX Runtime's operators."""

    def __init__(self, logits: Buffer, *, threads: int) -> None:
        self._logits, self._threads = logits, threads
        self._vocabulary_size = logits.shape[2]
        self._on_host = logits.device == "cpu" and logits.owner.dtype.kind == "f"
        self._tokens = np.zeros(logits.shape[0], np.int64)
        self._sessions: dict[Variant, ort.InferenceSession] = {}
        self._bindings: dict[tuple[Variant, int], ort.IOBinding] = {}

    def edits(self) -> Edits:
        """To be filled and given to `sample`."""
        return Edits(self._vocabulary_size)

    def sample(self, rows: Rows, count: int, edits: Edits | None = None) -> npt.NDArray[np.int64]:
        """The token of each of the first `count` rows, or `INVALID` where the logits are not finite; good until the
        next call."""
        inputs = edits.inputs() if edits else {}
        largest = 0
        if not (drawn := bool(rows.temperature[:count].any())) and not edits and self._on_host:
            return self._best(count)
        if drawn:
            largest = min(int(rows.top_k[:count].max()), self._vocabulary_size)
            inputs |= _draw_inputs(rows, count)
        if has_floor := drawn and bool(rows.min_p[:count].any()):
            inputs["min_p"] = rows.min_p[:count]
        if largest:
            inputs["top_k"] = np.minimum(rows.top_k[:count], self._vocabulary_size)
            inputs["candidates"] = np.array([largest], np.int64)
        self._run(Variant(not drawn, largest > 0, has_floor, bool(edits)), count, inputs)
        return self._tokens[:count]

    def _best(self, count: int) -> npt.NDArray[np.int64]:
        logits = self._logits.owner[:count, 0]
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(np.einsum("rv->r", logits, dtype=np.float32))
        self._tokens[:count] = np.where(finite, logits.argmax(axis=1), INVALID)
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
            min_p=variant.min_p,
            edited=variant.edited,
        )
        return open_session(model, device=self._logits.device, threads=self._threads, strict=False)


def _draw_inputs(rows: Rows, count: int) -> dict[str, npt.NDArray[Any]]:
    return {
        "uniform": uniforms(rows.seed[:count], rows.completion[:count], rows.position[:count], ATTEMPTS),
        "temperature": rows.temperature[:count],
        "top_p": rows.top_p[:count],
    }
