"""Graphs that number the positions in other ways than the plain Llama: learned embeddings, windows, short tables."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from services.worker import repository
from services.worker.generation import GenerationEngine
from services.worker.generation.decoder import Chunk
from services.worker.generation.slot.decoder import SlotDecoder
from tests.models import TinyLlama, write_model

PROMPT = np.random.default_rng(4).integers(1, 300, 45)
Floats = npt.NDArray[np.float32]
Change = Callable[[onnx.GraphProto], None]


def written(folder: Path, change: Change) -> Path:
    """A tiny model whose graph is changed, and whose configuration names the positions among the inputs."""
    made = write_model(folder, shape=TinyLlama(external_data=False))
    model = onnx.load(made / "model.onnx")
    change(model.graph)
    onnx.save(model, made / "model.onnx")
    config = json.loads((made / "genai_config.json").read_text())
    config["model"]["decoder"]["inputs"]["position_ids"] = "position_ids"
    (made / "genai_config.json").write_text(json.dumps(config))
    return made


def load(folder: Path) -> GenerationEngine:
    (model,), broken = repository.scan(folder)
    assert not broken
    engine = repository.load(model, "cpu", threads=1)
    assert isinstance(engine, GenerationEngine)
    return engine


def embed_positions(graph: onnx.GraphProto) -> None:
    """Adds a learned embedding of each of 128 positions to the tokens' own."""
    table = np.random.default_rng(1).standard_normal((128, 32)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(table, "positions"))
    graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch", "tokens"]))
    tokens = next(node for node in graph.node if node.name == "/model/embed_tokens/Gather")
    place, output = list(graph.node).index(tokens) + 1, tokens.output[0]
    tokens.output[0] = "tokens"
    graph.node.insert(place, helper.make_node("Gather", ["positions", "position_ids"], ["numbered"]))
    graph.node.insert(place + 1, helper.make_node("Add", ["tokens", "numbered"], [output]))


def add_windows(size: int) -> Change:
    """Of `size` positions in each layer, with caches that keep no more than that, as the model builder writes them."""

    def change(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type == "GroupQueryAttention":
                next(a for a in node.attribute if a.name == "local_window_size").i = size
                node.attribute.append(helper.make_attribute("sliding_window_cache", 1))

    return change


def original_logits(folder: Path) -> Floats:
    """[tokens, vocabulary], of the graph as it was written, in one run."""
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    row = PROMPT[np.newaxis]
    feed = {"input_ids": row, "attention_mask": np.ones_like(row), "position_ids": np.arange(45)[np.newaxis]}
    feed = {port.name: feed[port.name] for port in session.get_inputs() if port.name in feed}
    past = {p.name: np.zeros((1, 2, 128, 16), np.float32) for p in session.get_inputs() if p.name not in feed}
    return np.asarray(session.run(["logits"], feed | past)[0][0])


@pytest.mark.parametrize("change", [embed_positions, add_windows(8)], ids=["embeddings", "windows"])
def test_chunks_and_single_tokens_give_the_original_graphs_logits(change: Change, tmp_path: Path) -> None:
    """Half of the prompt in chunks in two rows, the rest token by token in one of them while the other goes on."""
    expected = original_logits(written(tmp_path, change))
    model = SlotDecoder(load(tmp_path).config, device="cpu", threads=1)
    for start in range(0, 22, 11):
        model.run(
            np.zeros((0, 1), np.int64), np.zeros(0, np.int32), [Chunk(0, PROMPT[start : start + 11], start, True)]
        )
    assert model.logits.owner[0, 0] == pytest.approx(expected[21], abs=1e-4)
    for at in range(22, 45):
        model.run(
            PROMPT[at, np.newaxis, np.newaxis],
            np.array([at], np.int32),
            [Chunk(1, PROMPT[at - 22 : at - 21], at - 22, True)],
        )
        assert model.logits.owner[0, 0] == pytest.approx(expected[at], abs=1e-4)
        assert model.logits.owner[1, 0] == pytest.approx(expected[at - 22], abs=1e-4)


def test_a_window_that_is_longer_than_the_context_changes_nothing(tmp_path: Path) -> None:
    plain = original_logits(write_model(tmp_path / "plain", shape=TinyLlama()))
    written(tmp_path / "wide", add_windows(200))
    model = SlotDecoder(load(tmp_path / "wide").config, device="cpu", threads=1)
    model.run(np.zeros((0, 1), np.int64), np.zeros(0, np.int32), [Chunk(0, PROMPT, 0, True)])
    assert model.logits.owner[0, 0] == pytest.approx(plain[-1], abs=1e-4)


@pytest.mark.parametrize("table", ["cos_cache", "positions"])
def test_a_context_longer_than_the_tables_is_refused(table: str, tmp_path: Path) -> None:
    def shorten(graph: onnx.GraphProto) -> None:
        embed_positions(graph)
        tensor = next(tensor for tensor in graph.initializer if tensor.name == table)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:100], table))

    written(tmp_path, shorten)
    with pytest.raises(ValueError, match="context_length 128 is more than the graph's 100 positions"):
        load(tmp_path)
