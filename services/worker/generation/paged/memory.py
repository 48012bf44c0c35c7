"""KV memory in blocks: for each layer a key and a value buffer [blocks, positions, kv_heads, head]."""

from collections.abc import Sequence

import onnxruntime as ort
from onnx import helper

from services.worker.generation.paged.tables import Copy
from services.worker.session import allocate, open_session


class BlockMemory:
    """Allocated once; a run reads and writes it where it lies. `ports`: the graph's (past, present) ports."""

    def __init__(
        self, ports: Sequence[tuple[str, str]], shape: tuple[int, int, int, int], element_type: int, device: str
    ) -> None:
        self._ports = ports
        self.buffers = [allocate(shape, element_type, device) for _ in ports]
        self._copier = open_session(_copier(len(ports), shape, element_type), device=device, threads=1)
        self._copying = self._copier.io_binding()

    @property
    def size_bytes(self) -> int:
        return sum(buffer.size_bytes for buffer in self.buffers)

    def bind(self, binding: ort.IOBinding) -> None:
        """As past and present of every run."""
        for (past, present), buffer in zip(self._ports, self.buffers, strict=True):
            buffer.bind_input(binding, past, 0, buffer.shape[0])
            buffer.bind_output(binding, present, 0, buffer.shape[0])

    def copy(self, copies: Sequence[Copy]) -> None:
        """In all buffers, without leaving the device."""
        for copy in copies:
            for index, buffer in enumerate(self.buffers):
                buffer.bind_input(self._copying, f"s{index}", copy.source, 1)
                buffer.bind_output(self._copying, f"t{index}", copy.target, 1)
            self._copier.run_with_iobinding(self._copying)


def _copier(buffers: int, shape: tuple[int, int, int, int], element_type: int) -> bytes:
    """A graph that copies a block in each of so many buffers, by an Identity."""
    pairs = [(f"s{index}", f"t{index}") for index in range(buffers)]
    nodes = [helper.make_node("Identity", [source], [target]) for source, target in pairs]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, element_type, [1, *shape[1:]]) for name in names]
        for names in zip(*pairs, strict=True)
    )
    graph = helper.make_graph(nodes, "copy", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())
