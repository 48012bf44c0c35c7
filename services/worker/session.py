"""ONNX Runtime sessions and the memory that they read and write, on either device."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto, helper

PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [
        ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}),
        "CPUExecutionProvider",
    ],
}


def open_session(
    model: bytes,
    *,
    device: str,
    threads: int,
    weights: Path | None = None,
    given: Mapping[str, npt.NDArray[Any]] | None = None,
    strict: bool = True,
    captures: bool = False,
    arena_bytes: int | None = None,
) -> ort.InferenceSession:
    """A session over a serialised model. `weights`: the folder of its external data; `given`: initialisers that lie in
    no file. With `strict`, a node that the device has no kernel for is an error rather than a silent detour over the
    CPU. With `captures`, runs on a GPU become CUDA graphs, each under the number that its run options give it.
    `arena_bytes`: the most that a GPU's arena, which never shrinks, may take for weights and what a run makes.

    Worker threads spin within a run, where the next node is a moment away, and not between runs, where they would take
    cores from the sessions and processes beside them.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    if given:
        options.add_external_initializers(list(given), [ort.OrtValue.ortvalue_from_numpy(a) for a in given.values()])
    if device == "cuda" and strict:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return ort.InferenceSession(model, options, providers=_providers(device, captures, arena_bytes))


def _providers(device: str, captures: bool, arena_bytes: int | None) -> list[Any]:
    if device == "cpu":
        return PROVIDERS[device]
    (name, chosen), *others = PROVIDERS[device]
    further = {"enable_cuda_graph": "1"} if captures else {}
    further |= {} if arena_bytes is None else {"gpu_mem_limit": str(arena_bytes)}
    return [(name, chosen | further), *others]


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A dense tensor on one device for as long as this object lives, bound by rows of its first axis."""

    owner: Any
    """A numpy array on the CPU, an OrtValue elsewhere."""
    address: int
    shape: tuple[int, ...]
    element_type: int
    """Of `onnx.TensorProto`."""
    device: str

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * numpy_type(self.element_type).itemsize

    @property
    def size_bytes(self) -> int:
        return self.shape[0] * self.row_bytes

    def bind_input(self, binding: ort.IOBinding, name: str, start: int, rows: int) -> None:
        binding.bind_input(name, self.device, 0, self.element_type, *self._rows(start, rows))

    def bind_output(self, binding: ort.IOBinding, name: str, start: int, rows: int) -> None:
        binding.bind_output(name, self.device, 0, self.element_type, *self._rows(start, rows))

    def bind_line(self, binding: ort.IOBinding, name: str, start: int, rows: int) -> None:
        """Rows of a buffer [rows, 1, …] as an output [1, rows, …]."""
        shape, address = self._rows(start, rows)
        binding.bind_output(name, self.device, 0, self.element_type, (1, rows, *shape[2:]), address)

    def _rows(self, start: int, rows: int) -> tuple[tuple[int, ...], int]:
        return (rows, *self.shape[1:]), self.address + start * self.row_bytes


def allocate(shape: tuple[int, ...], element_type: int, device: str) -> Buffer:
    """A buffer of zeros. Raises ValueError where there is no memory for it."""
    try:
        zeros = np.zeros(shape, numpy_type(element_type))
    except MemoryError as error:
        raise ValueError(f"there is no memory for a buffer of the shape {shape}") from error
    if device == "cpu":
        return Buffer(owner=zeros, address=zeros.ctypes.data, shape=shape, element_type=element_type, device=device)
    value = ort.OrtValue.ortvalue_from_numpy(zeros, device, 0)
    return Buffer(owner=value, address=value.data_ptr(), shape=shape, element_type=element_type, device=device)


def numpy_type(element_type: int) -> np.dtype[Any]:
    """The numpy type of the same layout."""
    return (
        np.dtype(np.uint16) if element_type == TensorProto.BFLOAT16 else helper.tensor_dtype_to_np_dtype(element_type)
    )
