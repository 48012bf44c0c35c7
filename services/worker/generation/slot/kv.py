"""The KV cache: for each layer a key and a value buffer [slots, kv_heads, length, head], past and present in one.
Beyond the model's slots there is one for tokens that mean nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import helper

from services.worker.generation.config import ModelConfig
from services.worker.session import Buffer, allocate, open_session

Piece = list[npt.NDArray[Any]]
"""Some positions of one slot: for each buffer [kv_heads, positions, head]."""


class Cache:
    """Allocated once. GroupQueryAttention writes present into past where both are bound to the same address."""

    def __init__(self, config: ModelConfig, *, element_type: int, device: str) -> None:
        decoder = config.decoder
        shape = (config.slots + 1, decoder.kv_heads, config.context_length, decoder.head_size)
        self._ports = decoder.caches()
        self._buffers = [allocate(shape, element_type, device) for _ in self._ports]
        self._copier = None if device == "cpu" else DeviceCopy(element_type, device)

    @property
    def memory_bytes(self) -> int:
        return sum(buffer.size_bytes for buffer in self._buffers)

    @property
    def position_bytes(self) -> int:
        """Of one position of one slot."""
        return sum(buffer.row_bytes // buffer.shape[2] for buffer in self._buffers)

    @property
    def on_host(self) -> bool:
        return self._copier is None

    def read(self, slot: int, start: int, end: int) -> Piece:
        """A copy of these positions. On the host only, as `write`."""
        return [np.ascontiguousarray(buffer.owner[slot, :, start:end]) for buffer in self._buffers]

    def write(self, slot: int, start: int, piece: Piece) -> None:
        for buffer, part in zip(self._buffers, piece, strict=True):
            buffer.owner[slot, :, start : start + part.shape[1]] = part

    def bind(self, binding: ort.IOBinding, slot: int, rows: int, port: Callable[[str], str] = str) -> None:
        """Binds `rows` slots from `slot` on as past and present; `port`: what a port is called."""
        for (past, present), buffer in zip(self._ports, self._buffers, strict=True):
            buffer.bind_input(binding, port(past), slot, rows)
            buffer.bind_output(binding, port(present), slot, rows)

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` positions of a slot to another; on a GPU the whole slot, which is one piece."""
        for buffer in self._buffers:
            if self._copier is None:
                buffer.owner[target, :, :length] = buffer.owner[source, :, :length]
            else:
                self._copier.copy(buffer, source, target)


class DeviceCopy:
    """Copies a row of a buffer to another without leaving the device, by a graph of one Identity."""

    def __init__(self, element_type: int, device: str) -> None:
        source, target = (helper.make_tensor_value_info(name, element_type, ["r", "h", "l", "d"]) for name in "st")
        graph = helper.make_graph([helper.make_node("Identity", ["s"], ["t"])], "copy", [source], [target])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        self._session = open_session(model.SerializeToString(), device=device, threads=1)

    def copy(self, buffer: Buffer, source: int, target: int) -> None:
        binding = self._session.io_binding()
        buffer.bind_input(binding, "s", source, 1)
        buffer.bind_output(binding, "t", target, 1)
        self._session.run_with_iobinding(binding)
