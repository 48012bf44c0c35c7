"""What each method makes of a graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from millrace.exporting.parity import Tensors
from millrace.optimizing import graphs, methods, version
from millrace.optimizing.graphs import Unsuitable
from millrace.optimizing.methods.fold import fold
from millrace.optimizing.order import Calibration, Method
from tests.graphs import affine, attention, model
from tests.optimizing.models import ROOT, WIDTH, write

X = np.random.default_rng(7).standard_normal((16, WIDTH)).astype(np.float32)


def made(folder: Path, method: Method, out: Path) -> Path:
    feeds = iter([{"x": X[index : index + 1]} for index in range(len(X))])
    methods.make(method, version.read(folder, "cpu"), out, feeds, Calibration.MINMAX)
    return out


def scores(graph: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(graphs.open_session(graph, "cpu", 1).run(None, {"x": X})[0])


@pytest.mark.parametrize(
    ("method", "error", "share"),
    [
        (Method.GRAPH, 1e-5, 1.05),
        (Method.FP16, 2e-3, 0.7),
        (Method.INT8, 0.05, 0.6),
        (Method.INT8_STATIC, 0.05, 0.6),
        (Method.INT8_BLOCK, 0.05, 0.6),
        (Method.INT4, 0.2, 0.4),
    ],
)
def test_a_candidate_is_as_near_and_as_small_as_its_precision(
    tmp_path: Path, method: Method, error: float, share: float
) -> None:
    folder = write(tmp_path)
    original, out = folder / "model.onnx", made(folder, method, tmp_path / "made.onnx")
    expected = scores(original)
    assert 0 <= np.abs(scores(out) - expected).max() <= error * np.abs(expected).max()
    assert graphs.size(out) <= share * graphs.size(original)
    assert [path.name for path in tmp_path.glob("made*")] == ["made.onnx"]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Method.GRAPH, "nothing to fuse"),
        (Method.FP16, "no 32-bit floats"),
        (Method.INT8, "0.0% of its weights"),
        (Method.INT4, "0.0% of its weights"),
    ],
)
def test_a_graph_without_matrices_is_left_alone(tmp_path: Path, method: Method, words: str) -> None:
    with pytest.raises(Unsuitable, match=words):
        made(write(tmp_path, affine()), method, tmp_path / "made.onnx")


def test_without_calibration_data_there_are_no_static_ranges(tmp_path: Path) -> None:
    with pytest.raises(Unsuitable, match="--calibration"):
        methods.make(Method.INT8_STATIC, version.read(write(tmp_path), "cpu"), tmp_path / "o", None, Calibration.MINMAX)


def test_probabilities_keep_their_floats_where_all_else_has_8_bits(tmp_path: Path) -> None:
    digits, out = version.read(ROOT / "models" / "digits" / "1", "cpu"), tmp_path / "made.onnx"
    with np.load(ROOT / "models" / "digits" / "held_out.npz") as held_out:
        x = held_out["x"].astype(np.float32)
    methods.make(Method.INT8_STATIC, digits, out, iter([{"x": x[:64]}]), Calibration.MINMAX)
    probabilities = graphs.open_session(out, "cpu", 1).run(["probabilities"], {"x": x})[0]
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-5
    assert len(np.unique(probabilities)) > 1_000
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(out).graph.node}


def test_entropy_needs_inputs_of_one_length(tmp_path: Path) -> None:
    feeds: list[Tensors] = [{"input_ids": np.ones((1, length)), "attention_mask": np.ones((1, 4))} for length in (4, 5)]
    original = version.read(write(tmp_path, attention()), "cpu")
    with pytest.raises(Unsuitable, match="minmax"):
        methods.make(Method.INT8_STATIC, original, tmp_path / "o.onnx", iter(feeds), Calibration.ENTROPY)


@pytest.mark.parametrize("method", [Method.INT8, Method.INT8_STATIC])
def test_a_decoder_keeps_its_streams_apart(tmp_path: Path, method: Method) -> None:
    decoder = version.read(ROOT / "models" / "pycode" / "1", "cpu")
    with pytest.raises(Unsuitable, match="int8-block"):
        methods.make(method, decoder, tmp_path / "o.onnx", None, Calibration.MINMAX)


def test_a_decoder_in_four_bits_keeps_eight_in_its_head(tmp_path: Path) -> None:
    decoder, out = version.read(ROOT / "models" / "pycode" / "1", "cpu"), tmp_path / "model.onnx"
    methods.make(Method.INT4, decoder, out, None, Calibration.MINMAX)
    products = [node for node in onnx.load(out).graph.node if node.op_type == "MatMulNBits"]
    bits = [next(one.i for one in node.attribute if one.name == "bits") for node in products]
    assert (bits[-1], bits.count(8)) == (8, 1)
    assert bits.count(4) % 6 == 0, "as many of each layer"
    assert graphs.size(out) < 0.6 * graphs.size(decoder.graph)


def test_a_matrix_that_is_turned_by_gemm_is_turned_ahead(tmp_path: Path) -> None:
    """The shapes that the graph tells of its constants must not contradict the new ones."""
    weight = np.random.default_rng(9).standard_normal((96, WIDTH)).astype(np.float32)
    graph = model(
        [("Gemm", ["x", "weight"], ["y"], {"transB": 1})],
        {"x": (TensorProto.FLOAT, ["batch", WIDTH])},
        {"y": (TensorProto.FLOAT, ["batch", 96])},
        {"weight": weight},
    )
    graph.graph.value_info.append(onnx.helper.make_tensor_value_info("weight", TensorProto.FLOAT, weight.shape))
    found = scores(made(write(tmp_path, graph), Method.INT8, tmp_path / "made.onnx"))
    assert np.abs(found - X @ weight.T).max() < 0.05 * np.abs(found).max()


def test_stored_halves_are_folded_and_their_other_readers_keep_them() -> None:
    table = np.random.default_rng(8).standard_normal((40, 32)).astype(np.float16)
    graph = model(
        [
            ("Cast", ["table"], ["wide"], {"to": TensorProto.FLOAT}),
            ("Gather", ["wide", "ids"], ["states"], {}),
            ("Transpose", ["wide"], ["turned"], {"perm": [1, 0]}),
            ("MatMul", ["states", "turned"], ["logits"], {}),
        ],
        {"ids": (TensorProto.INT64, ["batch"])},
        {"logits": (TensorProto.FLOAT, ["batch", 40])},
        {"table": table},
    )
    (name,) = fold(graph)
    graphs.prune(graph)
    (product,) = [node for node in graph.graph.node if node.op_type == "MatMul"]
    constants = {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer}
    assert product.name == name
    assert np.array_equal(constants[product.input[1]], table.T.astype(np.float32))
    assert constants["table"].dtype == np.float16
    assert [node.op_type for node in graph.graph.node] == ["Cast", "Gather", "MatMul"]
