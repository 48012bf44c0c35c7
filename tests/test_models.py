"""The synthetic models are what they are said to be."""

import itertools
import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, defs, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from services.worker import repository
from tests.models import EOS, EOS_ID, LLAMA_1B, LLAMA_8B, TinyLlama, llama, noise, tokenizer, write_model

PROMPT = np.random.default_rng(2).integers(1, 320, (1, 24))
CACHES = [f"{layer}.{kind}" for kind in ("key", "value") for layer in (0, 1)]
FOREIGN = {"GroupQueryAttention", "PagedAttention", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"}


@pytest.fixture
def foreign_operators() -> Iterator[None]:
    """ONNX knows the operators that ONNX Runtime adds: what they take, and of which types."""
    known = [schema for schema in get_all_operator_schema() if schema.name in FOREIGN]
    for schema in known:
        defs.register_schema(translated(schema))
    yield
    for schema in known:
        defs.deregister_schema(schema.name, 1, schema.domain)


def translated(schema: Any) -> Any:
    onnx_schema: Any = defs.OpSchema
    formal, attribute_of = onnx_schema.FormalParameter, onnx_schema.Attribute
    ports = [
        [
            formal(port.name, port.typeStr, "", param_option=onnx_schema.FormalParameterOption(port.option.value))
            for port in group
        ]
        for group in (schema.inputs, schema.outputs)
    ]
    return onnx_schema(
        schema.name,
        schema.domain,
        1,
        inputs=ports[0],
        outputs=ports[1],
        type_constraints=[(t.type_param_str, t.allowed_type_strs, "") for t in schema.type_constraints],
        attributes=[
            attribute_of(name, onnx_schema.AttrType(attribute.type.value), "", required=attribute.required)
            for name, attribute in schema.attributes.items()
        ],
    )


def logits(shape: TinyLlama) -> npt.NDArray[np.float32]:
    """Of each position of the prompt, in two runs: the second has a past."""
    session = ort.InferenceSession(llama.build(shape).SerializeToString(), providers=["CPUExecutionProvider"])
    empty = np.zeros((1, shape.kv_heads, 0, shape.head_size), helper.tensor_dtype_to_np_dtype(shape.kv_element_type))
    names = [f"{layer}.{kind}" for kind in ("key", "value") for layer in range(shape.layers)]
    past, found = [empty for _ in names], []
    for start, end in ((0, 16), (16, PROMPT.shape[1])):
        feed = {"input_ids": PROMPT[:, start:end], "attention_mask": np.ones((1, end), np.int64)}
        feed |= {f"past_key_values.{name}": array for name, array in zip(names, past, strict=True)}
        row, *past = session.run(["logits", *(f"present.{name}" for name in names)], feed)
        found.append(row.astype(np.float32))
    return np.concatenate(found, axis=1)


def weights(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def described(ports: Any) -> list[tuple[str, int, list[int | str]]]:
    kinds = [(port.name, port.type.tensor_type) for port in ports]
    return [(name, kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim]) for name, kind in kinds]


def test_a_written_folder_is_a_model_with_all_its_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path, chat_template="{{ messages }}", description="Mine.")
    (model,), broken = repository.scan(tmp_path)
    assert not broken
    assert model.file.description == "Mine."
    assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"


@pytest.mark.parametrize(
    ("narrow", "apart"),
    [
        (TinyLlama(precision="fp16"), 0.003),
        (TinyLlama(kv_precision="int8"), 0.05),
        (TinyLlama(precision="fp16", kv_precision="int8"), 0.05),
    ],
    ids=["fp16", "int8 cache", "fp16, int8 cache"],
)
def test_narrow_types_give_nearly_the_logits_of_wide_ones(narrow: TinyLlama, apart: float) -> None:
    wide = logits(TinyLlama())
    assert wide.std() == pytest.approx(llama.HEAD_GAIN, rel=0.1)
    difference = (logits(narrow) - wide).std() / wide.std()
    assert apart / 10 < difference < apart


def test_many_layers_of_16_bit_floats_stay_finite() -> None:
    deep = logits(TinyLlama(layers=48, hidden=64, precision="fp16"))
    assert np.abs(deep).max() < 8 * llama.HEAD_GAIN


def test_a_pruned_head_gives_the_last_positions_logits() -> None:
    pruned = logits(TinyLlama(prunes_head=True))
    assert pruned.shape == (1, 2, 320)
    np.testing.assert_allclose(pruned, logits(TinyLlama())[:, [15, 23]], atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [TinyLlama(nan_token_id=7), TinyLlama(precision="bf16"), TinyLlama(dialect="paged", kv_precision="int8")],
    ids=["fp32", "bf16", "paged"],
)
def test_weights_in_a_file_of_their_own_are_those_inside(
    shape: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = weights(llama.build(shape))
    monkeypatch.setattr(noise, "BLOCK_ELEMENTS", 100)
    llama.write(shape, tmp_path / "model.onnx")
    outside = weights(onnx.load(tmp_path / "model.onnx"))
    assert inside.keys() == outside.keys()
    for name, values in inside.items():
        np.testing.assert_array_equal(outside[name], values)
    assert (
        np.isnan(inside["model.embed_tokens.weight"]).all(1).nonzero()[0] == ([7] if shape.nan_token_id else [])
    ).all()


def test_the_noise_comes_round_again_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "PERIOD", 101)
    stream = noise.Noise(3)
    strips = [stream.take(40, 6, 0.5), stream.take(40, 3, 2.0)]
    ring = np.random.default_rng(3).standard_normal(101, np.float32)
    flat = ring[np.arange(360) % 101]
    expected = np.hstack([flat[:240].reshape(40, 6) * np.float32(0.5), flat[240:].reshape(40, 3) * np.float32(2)])
    for elements in (1, 64, 10_000):
        monkeypatch.setattr(noise, "BLOCK_ELEMENTS", elements)
        found = np.concatenate(list(stream.blocks(40, strips, TensorProto.FLOAT)))
        np.testing.assert_array_equal(found, expected)


def test_a_big_model_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    shape = TinyLlama(layers=6, hidden=1024, heads=16, head_size=64, intermediate=4096, precision="fp16")
    tracemalloc.start()
    llama.write(shape, tmp_path / "model.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / "model.onnx.data").stat().st_size * 0.6


@pytest.mark.parametrize(("shape", "millions"), [(LLAMA_1B, 1498), (LLAMA_8B, 8030)], ids=["1B", "8B"])
def test_the_presets_have_the_weights_of_the_real_models(shape: TinyLlama, millions: int) -> None:
    """Llama-3.2-1B has 1236 million, because its head is the transposed embedding."""
    drawn = [weight for weight in llama.draw(shape).weights if not weight.name.endswith("_cache")]
    assert sum(math.prod(weight.dims) for weight in drawn) / 1e6 == pytest.approx(millions, abs=1)


@pytest.mark.usefixtures("foreign_operators")
@pytest.mark.parametrize(
    "choices",
    [{"precision": "fp16"}, {"precision": "bf16"}, {"precision": "fp16", "kv_precision": "int8"}],
    ids=lambda choices: " ".join(choices.values()),
)
@pytest.mark.parametrize("dialect", ["gqa", "paged"])
def test_the_graphs_are_valid_by_the_operators_own_schemas(dialect: Any, choices: dict[str, Any]) -> None:
    onnx.checker.check_model(llama.build(TinyLlama(dialect=dialect, **choices)), full_check=True)


@pytest.mark.usefixtures("foreign_operators")
def test_a_graph_that_breaks_a_schema_is_found_out() -> None:
    model = llama.build(TinyLlama(dialect="paged"))
    node = next(node for node in model.graph.node if node.op_type == "PagedAttention")
    node.input.append("input_ids")
    with pytest.raises(onnx.checker.ValidationError, match="PagedAttention"):
        onnx.checker.check_model(model)


def test_the_paged_graph_has_the_model_builders_ports() -> None:
    graph = llama.build(TinyLlama(dialect="paged")).graph
    half, cache = TensorProto.FLOAT16, ["num_blocks", "block_size", 2, 16]
    assert described(graph.input) == [
        ("input_ids", TensorProto.INT64, ["num_tokens"]),
        *((f"past_key_values.{name}", half, cache) for name in CACHES),
        ("block_table", TensorProto.INT32, ["batch_size", "max_num_blocks"]),
        ("cumulative_sequence_lengths", TensorProto.INT32, ["batch_size + 1"]),
        ("past_sequence_lengths", TensorProto.INT32, ["batch_size"]),
        ("attention_metadata", TensorProto.INT32, [3]),
        ("logits_indices", TensorProto.INT32, ["num_logits"]),
    ]
    assert described(graph.output) == [
        ("logits", half, ["num_logits", 320]),
        *((f"present.{name}", half, cache) for name in CACHES),
    ]
    first = next(node for node in graph.node if node.op_type == "PagedAttention")
    assert list(first.input) == [
        "/model/layers.0/attn/qkv_proj/MatMul/output_0",
        *("", "", "past_key_values.0.key", "past_key_values.0.value"),
        *("cumulative_sequence_lengths", "past_sequence_lengths", "block_table", "cos_cache", "sin_cache"),
        *("", "", "", "", "", "", "attention_metadata"),
    ]


def test_both_dialects_of_a_seed_are_the_same_model() -> None:
    shapes = TinyLlama(precision="fp16"), TinyLlama(dialect="paged")
    rows, paged = (weights(llama.build(shape)) for shape in shapes)
    for layer in (0, 1):
        name = f"model.layers.{layer}.attn.{{}}_proj.MatMul.weight"
        apart = [rows.pop(name.format(part)) for part in "qkv"]
        np.testing.assert_array_equal(paged.pop(name.format("qkv")), np.hstack(apart))
    for name in paged:
        np.testing.assert_array_equal(paged[name], rows[name])


def test_another_seed_is_another_model() -> None:
    assert not np.array_equal(logits(TinyLlama(seed=1)), logits(TinyLlama()))


def test_each_token_of_a_wide_vocabulary_has_a_text_of_its_own() -> None:
    wide = tokenizer(LLAMA_8B.vocabulary_size)
    assert wide.get_vocab_size() == LLAMA_8B.vocabulary_size
    assert wide.token_to_id(EOS) == EOS_ID
    texts = {wide.decode([token_id]) for token_id in itertools.chain(range(257, 5000), [LLAMA_8B.vocabulary_size - 1])}
    assert len(texts) == 5000 - 257 + 1


def test_the_paged_configuration_names_its_inputs_and_blocks(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shape=TinyLlama(dialect="paged", device="cuda", block_size=64))
    config = json.loads((folder / "genai_config.json").read_text())
    assert list(config["model"]["decoder"]["inputs"]) == [
        *("input_ids", "block_table", "cumulative_sequence_lengths", "past_sequence_lengths", "attention_metadata"),
        *("logits_indices", "past_key_names", "past_value_names"),
    ]
    assert config["model"]["decoder"]["state_groups"] == [{"kind": "paged_kv", "layer_ids": [0, 1]}]
    assert config["engine"]["dynamic_batching"]["block_size"] == 64
