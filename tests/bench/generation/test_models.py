"""The same weights, for each who reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import yaml
from onnx import numpy_helper

from bench.generation import checkpoint, models
from bench.generation.models import Weights
from bench.models import llama
from tests.models import Llama

SHAPE = Llama(vocabulary_size=600)


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    return Weights(folder=llama.write(tmp_path / "weights", models.NAME, SHAPE), vocabulary=SHAPE.vocabulary_size)


def read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    packed = path.read_bytes()
    size = int.from_bytes(packed[:8], "little")
    header, data = json.loads(packed[8 : 8 + size]), packed[8 + size :]
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        found[name] = np.frombuffer(data[start:end], np.float32).reshape(entry["shape"])
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(data)
    return found


def test_a_checkpoint_holds_the_graph_s_weights(weights: Weights, tmp_path: Path) -> None:
    folder = models.write_checkpoint(weights, tmp_path / "checkpoint")
    found = read_tensors(folder / checkpoint.TENSORS)
    graph = onnx.load(weights.folder / "model.onnx").graph
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    np.testing.assert_array_equal(found["lm_head.weight"], expected["lm_head.MatMul.weight"].T)
    np.testing.assert_array_equal(found["model.embed_tokens.weight"], expected["model.embed_tokens.weight"])
    np.testing.assert_array_equal(
        found["model.norm.weight"], expected[f"model.layers.{SHAPE.layers}.final_norm_layernorm.weight"]
    )
    np.testing.assert_array_equal(
        found["model.layers.1.self_attn.k_proj.weight"], expected["model.layers.1.attn.k_proj.MatMul.weight"].T
    )
    np.testing.assert_array_equal(
        found["model.layers.0.mlp.down_proj.weight"], expected["model.layers.0.mlp.down_proj.MatMul.weight"].T
    )
    assert len(found) == 9 * SHAPE.layers + 3


def test_a_checkpoint_says_what_shape_it_has(weights: Weights, tmp_path: Path) -> None:
    folder = models.write_checkpoint(weights, tmp_path / "checkpoint")
    described = json.loads((folder / checkpoint.CONFIG).read_text())
    read = [described[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads")]
    assert read == [SHAPE.hidden, SHAPE.intermediate, SHAPE.layers, SHAPE.kv_heads]
    assert (folder / "tokenizer.json").exists()


def test_weights_under_other_names_are_refused(weights: Weights, tmp_path: Path) -> None:
    path = weights.folder / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    next(one for one in model.graph.initializer if "q_proj" in one.name).name = "query"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="not all"):
        models.write_checkpoint(weights, tmp_path / "checkpoint")


def test_what_is_served_has_the_keys_that_are_changed_and_the_same_weights(weights: Weights, tmp_path: Path) -> None:
    for slots in (7, 8):
        served = models.write_served(weights, tmp_path / "served", {"slots": slots})
        folder = served / models.NAME / "1"
        assert yaml.safe_load((folder / "model.yaml").read_text())["slots"] == slots
    assert yaml.safe_load((weights.folder / "model.yaml").read_text())["slots"] == SHAPE.slots
    assert (folder / "model.onnx.data").read_bytes() == (weights.folder / "model.onnx.data").read_bytes()


def test_a_key_that_millrace_refuses_is_an_error_that_names_it(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no_such_key"):
        models.write_served(weights, tmp_path / "served", {"no_such_key": 1})


def test_genai_is_told_the_threads(weights: Weights, tmp_path: Path) -> None:
    folder = models.write_genai(weights, tmp_path / "genai", threads=2)
    described = json.loads((folder / "genai_config.json").read_text())["model"]
    assert described["decoder"]["session_options"]["intra_op_num_threads"] == 2
    assert "intra_op_num_threads" not in (weights.folder / "genai_config.json").read_text()
