"""Graphs with fewer bits against the graphs that they were made of."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from examples.text import data, tokenizer
from scripts import perplexity
from services.worker.generation.slot import matrices, quantise
from services.worker.generation.slot.quantise import Scheme
from tests.models import TinyLlama, write_model

SHAPE = TinyLlama(hidden=64, intermediate=160)
IDS = np.random.default_rng(1).integers(1, 300, (33, 1))
BOTH = pytest.mark.parametrize("scheme", list(Scheme))
Floats = npt.NDArray[np.float32]


def read(shape: TinyLlama = SHAPE) -> tuple[onnx.ModelProto, Path]:
    folder = write_model(Path(tempfile.mkdtemp()), shape=shape)
    return onnx.load(folder / "model.onnx", load_external_data=False), folder


def open_session(model: onnx.ModelProto, folder: Path, arrays: quantise.Arrays) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    options.add_external_initializers(list(arrays), values)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def llama(scheme: Scheme | None, shape: TinyLlama = SHAPE) -> ort.InferenceSession:
    model, folder = read(shape)
    return open_session(model, folder, quantise.quantise(model, folder, scheme) if scheme else {})


def logits(session: ort.InferenceSession, ids: npt.NDArray[np.int64]) -> Floats:
    """Of rows of tokens [rows, tokens] with nothing before them."""
    pasts = [port.name for port in session.get_inputs() if port.name.startswith("past_")]
    feeds = {name: np.zeros((len(ids), 2, 0, 16), np.float32) for name in pasts}
    result: Floats = session.run(["logits"], feeds | {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    return result


def product(
    weight: npt.NDArray[Any], operator: str = "MatMul", bias: Floats | None = None, **attributes: Any
) -> onnx.ModelProto:
    """A graph of one product, which is no head: x [rows, inputs] → y [rows, outputs]."""
    tensors = [numpy_helper.from_array(weight, "weight")]
    tensors += [] if bias is None else [numpy_helper.from_array(bias, "bias")]
    nodes = [helper.make_node(operator, ["x", *(tensor.name for tensor in tensors)], ["xw"], "product", **attributes)]
    nodes.append(helper.make_node("Flatten", ["xw"], ["y"]))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", None]) for name in "xy"]
    graph = helper.make_graph(nodes, "product", ports[:1], ports[1:], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def multiply(model: onnx.ModelProto, scheme: Scheme, x: Floats) -> Floats:
    arrays = quantise.quantise(model, Path(), scheme)
    result: Floats = open_session(model, Path(), arrays).run(None, {"x": x})[0]
    return result


def normal(*dims: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(dims, np.float32)


def is_inner(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.name.endswith("proj.MatMul.weight"))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(("scheme", "mean", "most"), [(Scheme.INT8, 0.1, 1.0), (Scheme.INT4, 0.9, 5.0)])
def test_logits_stay_close_to_the_originals(scheme: Scheme, mean: float, most: float) -> None:
    ids = IDS.reshape(1, -1)
    original = logits(llama(None), ids)
    apart = np.abs(logits(llama(scheme), ids) - original)
    assert original.std() > 2
    assert 0 < apart.mean() < mean
    assert apart.max() < most


@BOTH
def test_a_row_has_the_same_bits_alone_and_among_any_others(scheme: Scheme) -> None:
    session = llama(scheme)
    alone = np.concatenate([logits(session, IDS[row : row + 1]) for row in range(len(IDS))])
    for rows in (2, 3, 16, 32, 33):
        assert (logits(session, IDS[:rows]) == alone[:rows]).all()
        assert (logits(session, IDS[-rows:]) == alone[-rows:]).all()


@BOTH
def test_a_matrix_of_the_size_of_a_real_one_gives_a_row_the_same_bits_for_any_number_of_rows(scheme: Scheme) -> None:
    model = product(normal(768, 2048))
    arrays = quantise.quantise(model, Path(), scheme)
    session, x = open_session(model, Path(), arrays), normal(129, 768, seed=2) * np.exp(normal(129, 1))
    alone = np.concatenate([session.run(None, {"x": x[row : row + 1]})[0] for row in range(len(x))])
    for rows in (2, 7, 17, 33, 64, 129):
        assert (session.run(None, {"x": x[-rows:]})[0] == alone[-rows:]).all()


@BOTH
def test_a_row_that_is_not_a_number_stays_so_and_leaves_the_others_alone(scheme: Scheme) -> None:
    session = llama(scheme, TinyLlama(hidden=64, intermediate=160, nan_token_id=7))
    ids = np.array([[5], [7], [9]])
    result = logits(session, ids)
    assert np.isnan(result[1]).all()
    assert (result[[0, 2]] == logits(session, ids[[0, 2]])).all()


@BOTH
def test_weights_leave_the_graph_and_the_files_originals_are_not_read_again(scheme: Scheme) -> None:
    model, folder = read()
    arrays = quantise.quantise(model, folder, scheme)
    assert len(model.SerializeToString()) < 40_000
    assert not [tensor.name for tensor in model.graph.initializer if tensor.name.endswith("MatMul.weight")]
    assert "MatMul" not in kinds(model)
    real = {name: array for name, array in arrays.items() if array.dtype != np.float32}
    values = sum(int(np.prod(array.shape)) for array in real.values())
    head, others = 64 * 320, sum(math.prod(tensor.dims) for tensor in read()[0].graph.initializer if is_inner(tensor))
    assert values == head + (others if scheme is Scheme.INT8 else others // 2)
    assert len(real) == 15


@BOTH
def test_weights_inside_the_graph_give_what_external_ones_give_and_so_does_a_second_time(scheme: Scheme) -> None:
    outside, inside = read(), read(TinyLlama(hidden=64, intermediate=160, external_data=False))
    first, second, again = (quantise.quantise(*graph, scheme) for graph in (outside, inside, read()))
    assert first.keys() == second.keys() == again.keys()
    assert all((first[name] == second[name]).all() and (first[name] == again[name]).all() for name in first)


def test_a_cpu_whose_signed_product_is_not_exact_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = IDS.reshape(1, -1)
    signed = logits(llama(Scheme.INT8), ids)
    monkeypatch.setattr(quantise, "multiplies_exactly", lambda: False)
    model, folder = read()
    arrays = quantise.quantise(model, folder, Scheme.INT8)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.uint8), np.dtype(np.float32)}
    assert (logits(open_session(model, folder, arrays), ids) == signed).all()


def test_with_four_bits_the_head_has_eight() -> None:
    model, folder = read()
    quantise.quantise(model, folder, Scheme.INT4)
    assert kinds(model).count("MatMulNBits") == 14
    assert kinds(model)[-1] == "MatMulIntegerToFloat"


def test_activations_are_rounded_once_for_all_products_that_share_them() -> None:
    model, folder = read()
    quantise.quantise(model, folder, Scheme.INT8)
    assert kinds(model).count("MatMulIntegerToFloat") == 15
    assert kinds(model).count("QuantizeLinear") == 2 * 4 + 1


def test_eight_bits_are_within_half_a_step_of_every_weight() -> None:
    weight = normal(70, 40) * np.exp(normal(1, 40, seed=1))
    whole, scales = matrices.per_column(weight)
    assert (np.abs(whole * scales - weight) <= scales * 0.501).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_are_within_a_step_of_every_weight_and_a_last_one_may_be_short(bits: int) -> None:
    weight = normal(70, 5)
    whole, scales = matrices.per_block(weight, bits=bits, block=32)
    assert (whole.shape, scales.shape) == ((5, 3, 4 * bits), (5, 3))
    numbers = whole if bits == 8 else np.stack([whole & 15, whole >> 4], axis=-1).reshape(5, 3, 32)
    back = (numbers.astype(np.float32) - (1 << bits - 1)) * scales[..., np.newaxis]
    apart = np.abs(back.reshape(5, 96)[:, :70].T - weight)
    assert (apart <= np.abs(scales).repeat(32, axis=1)[:, :70].T * 1.001).all()
    assert (back.reshape(5, 96)[:, 70:] == 0).all()


@BOTH
def test_inputs_that_fill_no_whole_block_are_multiplied_rightly(scheme: Scheme) -> None:
    weight, x = normal(70, 40), normal(3, 70, seed=1)
    assert multiply(product(weight), scheme, x) == pytest.approx(x @ weight, abs=0.3 if scheme is Scheme.INT8 else 4)


@BOTH
def test_a_column_of_zeros_and_a_row_of_zeros_give_zeros(scheme: Scheme) -> None:
    weight, x = normal(64, 40), normal(3, 64, seed=1)
    weight[:, 11], x[1] = 0, 0
    y = multiply(product(weight), scheme, x)
    assert (y[:, 11] == 0).all()
    assert (y[1] == 0).all()
    assert np.isfinite(y).all()
    assert y[0, 10] == pytest.approx((x @ weight)[0, 10], abs=2)


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_by_name(scheme: Scheme, value: float) -> None:
    weight = normal(64, 40)
    weight[3, 4] = value
    with pytest.raises(ValueError, match=r"^the weight weight: it has values that are not finite$"):
        quantise.quantise(product(weight), Path(), scheme)


@pytest.mark.parametrize("place", ["../secret", "/etc/hostname", "missing"])
def test_a_weight_that_lies_outside_the_folder_is_refused_by_name(place: str) -> None:
    model, folder = read()
    (folder.parent / "secret").write_bytes(bytes(1 << 20))
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "lm_head.MatMul.weight")
    head.external_data[0].value = place
    with pytest.raises(ValueError, match=r"^the weight lm_head\.MatMul\.weight: .*should be"):
        quantise.quantise(model, folder, Scheme.INT8)


def test_nodes_that_feed_each_other_are_left_to_the_session_to_refuse() -> None:
    model = product(normal(64, 64))
    for source, target in (("b", "a"), ("a", "b")):
        model.graph.node.insert(0, helper.make_node("Identity", [source], [target]))
    model.graph.node.append(helper.make_node("MatMul", ["y", "a"], ["z"]))
    assert "weight/int8" in quantise.quantise(model, Path(), Scheme.INT8)


@BOTH
@pytest.mark.parametrize("turned", [False, True])
def test_a_gemm_with_a_bias_is_a_product_and_a_sum(scheme: Scheme, turned: bool) -> None:
    weight, bias, x = normal(64, 40), normal(40, seed=3), normal(3, 64, seed=1)
    model = product(np.ascontiguousarray(weight.T) if turned else weight, "Gemm", bias, transB=int(turned))
    expected = multiply(product(weight), scheme, x) + bias
    assert multiply(model, scheme, x) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"transA": 1}, {"beta": 2.0}])
def test_a_gemm_that_does_more_stays_as_it_is(attributes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no matrix that can be stored as int8"):
        quantise.quantise(product(normal(64, 64), "Gemm", normal(64), **attributes), Path(), Scheme.INT8)


@BOTH
def test_a_head_that_shares_halves_with_the_embedding_is_quantised_and_the_embedding_is_not(scheme: Scheme) -> None:
    model, folder = read()
    table = normal(320, 64)
    tie(model, table.astype(np.float16))
    arrays = quantise.quantise(model, folder, scheme)
    assert {"tied", "table"} <= {name for node in model.graph.node for name in (*node.input, *node.output)}
    assert "tied/turned/int8" in arrays
    assert logits(open_session(model, folder, arrays), IDS).shape == (33, 1, 320)


def tie(model: onnx.ModelProto, table: npt.NDArray[np.float16]) -> None:
    """Makes the embedding and the head one table [vocabulary, hidden], stored in 16 bits."""
    graph = model.graph
    gather, head = graph.node[:][kinds(model).index("SimplifiedLayerNormalization") - 1], graph.node[-1]
    graph.initializer.append(numpy_helper.from_array(table, "tied"))
    gather.input[0], head.input[1] = "table", "turned"
    graph.node.insert(0, helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]))
    graph.node.insert(0, helper.make_node("Cast", ["tied"], ["table"], to=TensorProto.FLOAT))


def test_small_matrices_other_types_and_products_of_activations_stay_as_they_are() -> None:
    for weight in (normal(16, 16), normal(64, 64).astype(np.float16), normal(2, 64, 64)):
        with pytest.raises(ValueError, match="no matrix"):
            quantise.quantise(product(weight), Path(), Scheme.INT8)
    model = product(normal(64, 64))
    model.graph.node[0].input[1] = "x"
    with pytest.raises(ValueError, match="no matrix"):
        quantise.quantise(model, Path(), Scheme.INT8)


def test_what_is_quantised_already_stays_as_it_is() -> None:
    model, folder = read()
    quantise.quantise(model, folder, Scheme.INT4)
    with pytest.raises(ValueError, match="no matrix"):
        quantise.quantise(model, folder, Scheme.INT8)


def test_on_held_out_text_a_trained_model_loses_less_than_one_hundredth_with_eight_bits_and_five_with_four() -> None:
    words, corpus = tokenizer.load(perplexity.MODEL), data.read_corpus()
    stream = tokenizer.encode(words, corpus.held_out[:2])[:1500]
    trained_on = tokenizer.encode(words, corpus.train[:60])
    costs = {name: float(graph.costs(stream).mean()) for name, graph in perplexity.contestants(trained_on, 1)}
    lost = {name: math.exp(cost - costs["stored"]) - 1 for name, cost in costs.items()}
    assert abs(lost["int8"]) < 0.01
    assert abs(lost["int8 cache"]) < 0.01
    assert 0 < lost["int4"] < 0.05


def test_a_graph_of_an_old_opset_is_refused() -> None:
    model = product(normal(64, 64))
    model.opset_import[0].version = 17
    with pytest.raises(ValueError, match="opset 17"):
        quantise.quantise(model, Path(), Scheme.INT8)
