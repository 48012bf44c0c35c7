"""Bounds on what sizes that are small to say can ask for."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from millrace.errors import Code
from millrace.oip.inference_pb2 import ModelInferRequest
from services.worker.batch import forming, graph
from tests.fuzz.graph_files import loop
from tests.fuzz.served import lengths, reshaped
from tests.fuzz.tensors import nothing
from tests.graphs import affine, identity
from tests.worker.batch.requests import answer, engine_of, gated, request, row, run


def test_padding_that_would_take_any_amount_of_memory_is_refused() -> None:
    engine = engine_of(lengths(), buckets={"b": [4]})
    good = request(x=np.ones((1, 2, 3), np.float32))
    ended = run(engine, {"bad": nothing(1, 2**31 - 1, 0), "good": good})
    failure = ended["bad"].failure
    assert failure is not None
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, "inputs")
    assert answer(ended["good"])["y"].tolist() == [[[-1.0] * 3] * 2]


def test_rows_that_are_too_large_together_run_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forming, "BUFFER_BYTES", 2 * 3 * 4)
    engine = engine_of(affine())
    gate = gated(engine)
    gate.opened.set()
    ended = run(engine, {f"{n}": row(n, n, n) for n in range(5)} | {"wide": request(x=np.ones((4, 3), np.float32))})
    assert [answer(ended[f"{n}"])["y"].tolist() for n in range(5)] == [[[2 * n + 1] * 3] for n in range(5)]
    assert answer(ended["wide"])["y"].tolist() == [[3] * 3] * 4
    assert gate.runs == [2, 2, 1, 4]


@pytest.mark.parametrize(
    ("element_type", "value"),
    [
        (TensorProto.FLOAT, "text"),
        (TensorProto.INT64, float("inf")),
        (TensorProto.INT64, 2**70),
        (TensorProto.FLOAT16, 1e30),
        (TensorProto.STRING, 7),
    ],
)
def test_a_model_whose_inputs_cannot_hold_their_padding_is_not_served(element_type: int, value: object) -> None:
    with pytest.raises(ValueError, match=r"batching\.padding\.x: "):
        engine_of(identity(element_type), padding={"x": value})


def test_a_graph_without_an_end_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "TRIAL_S", 0.2)
    with pytest.raises(ValueError, match=r"takes more than 0\.2 s for a trial"):
        engine_of(loop(2**62))


def test_a_graph_whose_row_would_take_all_memory_is_not_tried() -> None:
    engine = engine_of(identity(TensorProto.INT8, ("batch", 2**40)))
    assert engine.ports.batched


def test_a_graph_with_more_dimensions_than_any_array_is_not_served() -> None:
    with pytest.raises(ValueError, match="65 dimensions: at most 64"):
        engine_of(identity(TensorProto.FLOAT, ["batch"] + [1] * 64))


def test_an_output_that_is_not_what_the_graph_says_fails_its_job_alone() -> None:
    sizes = {"good": np.array([2, 3]), "bad": np.array([6])}
    numbers = np.arange(6, dtype=np.float32)
    ended = run(engine_of(reshaped()), {name: request(x=numbers, shape=shape) for name, shape in sizes.items()})
    assert answer(ended["good"])["y"].tolist() == [[0, 1, 2], [3, 4, 5]]
    failure = ended["bad"].failure
    assert failure is not None
    assert (failure.code, "fewer dimensions than it says" in failure.message) == (Code.INTERNAL, True)


def test_the_shape_of_a_request_may_be_as_long_as_it_likes() -> None:
    message = ModelInferRequest.FromString(row(1, 2, 3))
    message.inputs[0].shape[:] = [1] * 1_000
    ended = run(engine_of(affine()), {"a": message.SerializeToString()})
    assert ended["a"].failure is not None


def test_a_graph_of_nothing_is_not_served() -> None:
    with pytest.raises(ValueError, match=r"\w"):
        engine_of(onnx.ModelProto())
