"""Graphs between an exporter and the model's folder."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from millrace.exporting import feeds, graphs
from tests import graphs as drawn


def linear(weights: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> onnx.ModelProto:
    """y = x · weights, for any number of rows, with notes of where it was made."""
    nodes = [helper.make_node("MatMul", ["x:0", "w"], ["Identity:0"], doc_string="/home/somebody/train.py")]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["unk__7", size])
        for name, size in zip(("x:0", "Identity:0"), weights.shape, strict=True)
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    entry = model.metadata_props.add()
    entry.key, entry.value = "source", "/home/somebody"
    return model


def test_a_saved_graph_carries_no_trace_of_where_it_was_made(tmp_path: Path) -> None:
    path = graphs.save(linear(np.eye(3, dtype=np.float32)), tmp_path)
    assert b"somebody" not in path.read_bytes()
    assert onnx.load(path).ir_version <= graphs.IR_VERSION


def test_ports_get_the_names_that_they_are_given_and_the_batch_its_own(tmp_path: Path) -> None:
    model = linear(np.eye(3, dtype=np.float32))
    graphs.rename(model, {"x:0": "pixels", "Identity:0": "scores"})
    graphs.name_batch(model)
    opened = graphs.session(graphs.save(model, tmp_path))
    assert [(port.name, port.dims) for port in graphs.inputs(opened)] == [("pixels", ("batch", 3))]
    assert [(port.name, port.dims) for port in graphs.outputs(opened)] == [("scores", ("batch", 3))]


def test_halved_weights_take_half_the_room_and_give_nearly_the_same(tmp_path: Path) -> None:
    weights = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
    path, rows = graphs.save(linear(weights), tmp_path), np.ones((2, 64), np.float32)
    size, before = path.stat().st_size, graphs.run(graphs.session(path), {"x:0": rows})["Identity:0"]
    graphs.halve(path)
    after = graphs.run(graphs.session(path), {"x:0": rows})["Identity:0"]
    assert path.stat().st_size < 0.6 * size
    assert 0 < np.abs(after.astype(np.float64) - before.astype(np.float64)).max() < 0.02


def test_weights_beyond_the_range_of_fp16_are_not_halved(tmp_path: Path) -> None:
    path = graphs.save(linear(np.full((2, 2), 1e6, np.float32)), tmp_path)
    with pytest.raises(ValueError, match="beyond its range"):
        graphs.halve(path)


def test_weights_in_a_file_of_their_own_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "INLINE_BYTES", 1_000)
    path = graphs.save(linear(np.ones((64, 32), np.float32)), tmp_path)
    size = (tmp_path / graphs.DATA_FILE).stat().st_size
    graphs.halve(path)
    assert (tmp_path / graphs.DATA_FILE).stat().st_size <= size / 2
    assert graphs.run(graphs.session(path), {"x:0": np.ones((1, 64), np.float32)})["Identity:0"][0, 0] == 64


def test_a_graph_that_is_not_in_order_is_refused(tmp_path: Path) -> None:
    model = linear(np.eye(3, dtype=np.float32))
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ValueError, match="not in order"):
        graphs.save(model, tmp_path)


def test_random_inputs_have_several_sizes_and_equal_names_the_same(tmp_path: Path) -> None:
    opened = graphs.session(graphs.save(drawn.attention(), tmp_path))
    runs = list(feeds.random_feeds(graphs.inputs(opened), high=drawn.VOCABULARY))
    shapes = [{array.shape for array in run.tensors.values()} for run in runs]
    assert shapes == [{(1, 5)}, {(3, 32)}, {(8, 47)}]
    assert [run.given for run in runs] == ["1 × 5", "3 × 32", "8 × 47"]
    assert max(int(run.tensors["input_ids"].max()) for run in runs) < drawn.VOCABULARY


def test_samples_are_what_the_model_takes_or_are_refused(tmp_path: Path) -> None:
    ports = (feeds.Port(name="x", dtype=np.dtype(np.float32), dims=("batch", 2)),)
    np.savez(tmp_path / "good.npz", x=np.ones((4, 2)))
    feed = feeds.read_samples(tmp_path / "good.npz", ports)
    assert (feed.given, feed.tensors["x"].dtype.name) == ("samples, 4", "float32")
    np.savez(tmp_path / "other.npz", y=np.ones(1))
    (tmp_path / "no.npz").write_text("no")
    np.savez(tmp_path / "code.npz", x=np.array([{}], object))
    for name, words in (("other.npz", "no array x"), ("no.npz", "not an .npz"), ("code.npz", "plain arrays")):
        with pytest.raises(ValueError, match=words):
            feeds.read_samples(tmp_path / name, ports)
