"""The KV cache: for each layer a key and a value buffer [slots, kv_heads, length, head], past and present in one."""

import onnxruntime as ort
from onnx import helper

from services.worker.generation.config import ModelConfig
from services.worker.session import Buffer, allocate, open_session


class Cache:
    """Allocated once. GroupQueryAttention writes present into past where both are bound to the same address."""

    def __init__(self, config: ModelConfig, *, element_type: int, device: str) -> None:
        decoder = config.decoder
        shape = (config.slots, decoder.kv_heads, config.context_length, decoder.head_size)
        self._ports = decoder.caches()
        self._buffers = [allocate(shape, element_type, device) for _ in self._ports]
        self._copier = None if device == "cpu" else DeviceCopy(element_type, device)

    @property
    def memory_bytes(self) -> int:
        return sum(buffer.size_bytes for buffer in self._buffers)

    def bind(self, binding: ort.IOBinding, slot: int, rows: int) -> None:
        """Binds `rows` slots from `slot` on as past and present of a run with as many rows."""
        for (past, present), buffer in zip(self._ports, self._buffers, strict=True):
            buffer.bind_input(binding, past, slot, rows)
            buffer.bind_output(binding, present, slot, rows)

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
