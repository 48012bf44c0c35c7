"""Outputs that are asked for as classifications."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx import TensorProto

from millrace.engine import Output
from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.tensors import MOST_CLASSES, unpack_bytes
from services.worker import repository
from services.worker.batch import BatchEngine
from tests.graphs import identity, mixing, write_graph
from tests.worker.batch.requests import engine_of, response_of, run

SCORES = np.array([[0.25, 3.5, -1.0], [2.0, 2.0, 9.0]], np.float32)


def labelled(tmp_path: Path, names: str, output: str = "y") -> BatchEngine:
    folder = write_graph(tmp_path, "tested", identity(TensorProto.FLOAT, ("batch", 3)), max_rows=32)
    (folder / "names.txt").write_text(names)
    file = folder / "model.yaml"
    settings = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(settings | {"labels": {output: "names.txt"}}))
    models, broken = repository.scan(tmp_path)
    assert not broken
    engine = repository.load(models[0], "cpu", threads=1)
    assert isinstance(engine, BatchEngine)
    return engine


def ask(engine: BatchEngine, count: int, scores: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = SCORES) -> Output:
    message = ModelInferRequest(model_name="tested")
    message.inputs.add(name="x", datatype="FP32", shape=scores.shape)
    message.raw_input_contents.append(scores.tobytes())
    message.outputs.add(name="y").parameters["classification"].int64_param = count
    return run(engine, {"a": message.SerializeToString()})["a"]


def texts(output: Output) -> tuple[str, list[int], list[str]]:
    response = response_of(output)
    (tensor,) = response.outputs
    return (
        tensor.datatype,
        list(tensor.shape),
        [item.decode() for item in unpack_bytes(response.raw_output_contents[0])],
    )


def test_the_largest_values_of_each_row_come_with_their_places() -> None:
    engine = engine_of(identity(TensorProto.FLOAT, ("batch", 3)))
    expected = ["3.500000:1", "0.250000:0", "9.000000:2", "2.000000:0"]
    assert texts(ask(engine, 2)) == ("BYTES", [2, 2], expected)


def test_more_than_there_are_gives_all() -> None:
    engine = engine_of(identity(TensorProto.FLOAT, ("batch", 3)))
    datatype, shape, _ = texts(ask(engine, 100))
    assert (datatype, shape) == ("BYTES", [2, 3])


def test_labels_stand_behind_the_places_they_name(tmp_path: Path) -> None:
    engine = labelled(tmp_path, "cat\nfür elise\n")
    assert texts(ask(engine, 3, SCORES[:1]))[2] == ["3.500000:1:für elise", "0.250000:0:cat", "-1.000000:2"]


def test_without_a_batch_the_whole_tensor_is_one_row() -> None:
    datatype, shape, found = texts(ask(engine_of(mixing()), 2))
    assert (datatype, shape) == ("BYTES", [2])
    assert [text.split(":")[1] for text in found] == ["5", "3"]


@pytest.mark.parametrize("count", [0, -1, MOST_CLASSES + 1])
def test_a_count_out_of_range_is_refused_with_its_field(count: int) -> None:
    output = ask(engine_of(identity(TensorProto.FLOAT, ("batch", 3))), count)
    assert output.failure is not None
    assert output.failure.field == "outputs[0].parameters[classification]"


def test_labels_of_an_output_that_there_is_not_are_a_broken_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.nothing: the graph has no such output"):
        labelled(tmp_path, "a", output="nothing")
