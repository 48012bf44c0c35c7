import numpy as np
import pytest
from onnx import TensorProto, helper

from services.worker.generation.paged.memory import BlockMemory
from services.worker.generation.paged.tables import Copy

SHAPE = (3, 16, 2, 8)
PORTS = [("past.key", "present.key"), ("past.value", "present.value")]


@pytest.mark.parametrize("element_type", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8])
def test_a_copied_block_is_the_same_in_all_layers_and_no_other_block_changes(element_type: int) -> None:
    memory = BlockMemory(PORTS, SHAPE, element_type, "cpu")
    for index, buffer in enumerate(memory.buffers):
        buffer.owner[:] = np.random.default_rng(index).integers(0, 100, SHAPE)
    before = [buffer.owner.copy() for buffer in memory.buffers]
    memory.copy([Copy(0, 2), Copy(1, 0)])
    for old, buffer in zip(before, memory.buffers, strict=True):
        assert (buffer.owner == old[[1, 1, 0]]).all()
    item = helper.tensor_dtype_to_np_dtype(element_type).itemsize
    assert memory.size_bytes == 2 * 3 * 16 * 2 * 8 * item
