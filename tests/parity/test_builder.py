"""The synthetic models are drawn as onnxruntime-genai's model builder draws one of the same shape."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from tests.models import Llama, llama, write_model
from tests.parity import exports, originals
from tests.parity.families import CONTEXT_LENGTH, Family

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None, reason="needs torch: `make parity` has an environment with it"
    ),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]
PLAIN = Llama(hidden=64, intermediate=96)
SHAPES = {
    "gqa": PLAIN,
    "gqa, pruned": replace(PLAIN, prunes_head=True),
    "paged": Llama(hidden=64, intermediate=96, dialect="paged", device="cuda"),
}
OPTIONS = {
    "gqa": ("fuse_qkv=false",),
    "gqa, pruned": ("fuse_qkv=false", "prune_lm_head=true"),
    "paged": ("use_paged_attention=true", "prune_lm_head=true"),
}
Described = dict[str, Any]


def described(model: onnx.ModelProto) -> Described:
    """Ports, weights and nodes. What is constant may be a node or a weight."""
    graph = model.graph
    ports = [[helper.printable_value_info(port) for port in group] for group in (graph.input, graph.output)]
    nodes = {
        node.name: (
            node.op_type,
            node.domain,
            list(node.input),
            list(node.output),
            {a.name: helper.get_attribute_value(a) for a in node.attribute},
        )
        for node in graph.node
        if node.op_type != "Constant"
    }
    weights = {t.name: (t.data_type, list(t.dims)) for t in graph.initializer if "/constants/" not in t.name}
    return {"inputs": ports[0], "outputs": ports[1], "nodes": nodes, "weights": weights}


@pytest.fixture(params=SHAPES, scope="module")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Llama, Path]:
    """A shape, and the folder that the model builder makes of a random model of that shape."""
    tmp_path = tmp_path_factory.mktemp("built")
    shape = SHAPES[request.param]
    family = Family(
        config="LlamaConfig",
        fields={"num_hidden_layers": shape.layers, "max_position_embeddings": CONTEXT_LENGTH},
        options=OPTIONS[request.param],
        device=shape.device,
        precision=shape.stored_precision,
    )
    originals.write(family, tmp_path / "original")
    (tmp_path / "built").mkdir()
    exports.export(family, tmp_path / "original", tmp_path / "built", "built")
    return shape, tmp_path / "built"


def test_the_graphs_are_alike(built: tuple[Llama, Path]) -> None:
    shape, folder = built
    ours = described(llama.build(shape))
    theirs = described(onnx.load(folder / "model.onnx", load_external_data=False))
    for part, content in theirs.items():
        assert ours[part] == content, part


def test_the_configurations_say_the_same(built: tuple[Llama, Path], tmp_path: Path) -> None:
    shape, folder = built
    ours, theirs = (
        json.loads((path / "genai_config.json").read_text())
        for path in (write_model(tmp_path / "models", shape=shape), folder)
    )
    assert ours["model"] == theirs["model"]
    assert ours["search"].items() <= theirs["search"].items()
    if shape.dialect == "paged":
        batching = theirs["engine"]["dynamic_batching"]
        assert ours["engine"]["dynamic_batching"] == batching | {"max_batch_size": shape.slots}
