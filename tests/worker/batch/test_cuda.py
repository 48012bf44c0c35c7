"""The same engine on a GPU."""

import numpy as np
import onnxruntime as ort
import pytest

from tests.graphs import VOCABULARY, affine, attention
from tests.worker.batch.requests import answer, engine_of, request, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-gpu and a GPU"
    ),
]


def test_a_batch_gives_what_the_cpu_gives() -> None:
    engines = [engine_of(attention(), device, buckets={"sequence": [8, 16]}) for device in ("cpu", "cuda")]
    dice = np.random.default_rng(3)
    bodies = {
        str(length): request(
            input_ids=dice.integers(0, VOCABULARY, (1, length)), attention_mask=np.ones((1, length), np.int64)
        )
        for length in range(1, 17)
    }
    on_cpu, on_cuda = (run(engine, bodies) for engine in engines)
    for lease in bodies:
        for name, values in answer(on_cpu[lease]).items():
            np.testing.assert_allclose(answer(on_cuda[lease])[name], values, atol=1e-3)


def test_each_lane_has_a_session_of_its_own() -> None:
    engine = engine_of(affine(), "cuda", sessions=2)
    assert len({id(session) for session in engine._idle}) == 2
    ended = run(engine, {str(index): request(x=np.full((1, 3), index, np.float32)) for index in range(6)})
    assert [answer(ended[str(index)])["y"][0, 0] for index in range(6)] == [1, 3, 5, 7, 9, 11]
