"""Small ONNX graphs for tensors, each with a trait that a test needs, and model folders that hold them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str]
VOCABULARY, HIDDEN = 10, 8


def affine(rows: int | str = "batch", element_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """y = 2 x + 1, for rows of three."""
    real = helper.tensor_dtype_to_np_dtype(element_type)
    return model(
        [("Mul", ["x", "two"], ["double"], {}), ("Add", ["double", "one"], ["y"], {})],
        {"x": (element_type, [rows, 3])},
        {"y": (element_type, [rows, 3])},
        {"two": np.array(2, real), "one": np.array(1, real)},
    )


def mixing() -> onnx.ModelProto:
    """y = x − the mean over the rows: rows know of each other, though the first dimensions are named alike."""
    return model(
        [("ReduceMean", ["x", "axis"], ["mean"], {"keepdims": 1}), ("Sub", ["x", "mean"], ["y"], {})],
        {"x": (TensorProto.FLOAT, ["batch", 3])},
        {"y": (TensorProto.FLOAT, ["batch", 3])},
        {"axis": np.array([0])},
    )


def embedding() -> onnx.ModelProto:
    """A row of the table for each id; an id beyond it makes the whole run fail."""
    table = np.arange(VOCABULARY * 2, dtype=np.float32).reshape(VOCABULARY, 2)
    return model(
        [("Gather", ["table", "ids"], ["vectors"], {})],
        {"ids": (TensorProto.INT64, ["batch", 4])},
        {"vectors": (TensorProto.FLOAT, ["batch", 4, 2])},
        {"table": table},
    )


def attention() -> onnx.ModelProto:
    """Texts of any length: masked self-attention over embeddings; every token's state, and their masked mean."""
    dice = np.random.default_rng(5)
    weights = {name: dice.standard_normal((HIDDEN, HIDDEN)).astype(np.float32) for name in ("q", "k", "v")}
    table = dice.standard_normal((VOCABULARY, HIDDEN)).astype(np.float32)
    constants: dict[str, Any] = {
        "one": np.float32(1),
        "far": np.float32(-1e4),
        "axis1": np.array([1]),
        "axis2": np.array([2]),
    }
    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Gather", ["table", "input_ids"], ["embedded"], {}),
        *(("MatMul", ["embedded", name], [f"{name}s"], {}) for name in weights),
        ("Transpose", ["ks"], ["kt"], {"perm": [0, 2, 1]}),
        ("MatMul", ["qs", "kt"], ["raw_scores"], {}),
        ("Cast", ["attention_mask"], ["mask"], {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["mask", "axis1"], ["key_mask"], {}),
        ("Sub", ["one", "key_mask"], ["masked"], {}),
        ("Mul", ["masked", "far"], ["bias"], {}),
        ("Add", ["raw_scores", "bias"], ["scores"], {}),
        ("Softmax", ["scores"], ["shares"], {"axis": -1}),
        ("MatMul", ["shares", "vs"], ["states"], {}),
        ("Unsqueeze", ["mask", "axis2"], ["state_mask"], {}),
        ("Mul", ["states", "state_mask"], ["kept"], {}),
        ("ReduceSum", ["kept", "axis1"], ["total"], {"keepdims": 0}),
        ("ReduceSum", ["mask", "axis1"], ["count"], {"keepdims": 1}),
        ("Max", ["count", "one"], ["divisor"], {}),
        ("Div", ["total", "divisor"], ["mean"], {}),
    ]
    return model(
        nodes,
        {name: (TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask")},
        {"states": (TensorProto.FLOAT, ["batch", "sequence", HIDDEN]), "mean": (TensorProto.FLOAT, ["batch", HIDDEN])},
        weights | {"table": table} | constants,
    )


def identity(element_type: int, dims: Dims = ("batch", 2)) -> onnx.ModelProto:
    return model([("Identity", ["x"], ["y"], {})], {"x": (element_type, dims)}, {"y": (element_type, dims)}, {})


def model(
    nodes: Sequence[tuple[str, list[str], list[str], dict[str, Any]]],
    inputs: dict[str, tuple[int, Dims]],
    outputs: dict[str, tuple[int, Dims]],
    constants: Mapping[str, Any],
) -> onnx.ModelProto:
    """Nodes are (operator, inputs, outputs, attributes); ports are name → (element type, dimensions); constants are
    arrays or numbers."""
    graph = helper.make_graph(
        [
            helper.make_node(operator, sources, targets, **attributes)
            for operator, sources, targets, attributes in nodes
        ],
        "test",
        [helper.make_tensor_value_info(name, *port) for name, port in inputs.items()],
        [helper.make_tensor_value_info(name, *port) for name, port in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def write_graph(repository: Path, name: str, graph: onnx.ModelProto, version: str = "1", **batching: Any) -> Path:
    """Writes NAME/VERSION/model.onnx; model.yaml only where something is said of `batching`."""
    folder = repository / name / version
    folder.mkdir(parents=True)
    onnx.save(graph, folder / "model.onnx")
    if batching:
        graphs = {"cpu": {"path": "model.onnx"}, "cuda": {"path": "model.onnx"}}
        text = {"name": name, "task": "tensor", "engine": "batch", "graphs": graphs, "batching": batching}
        (folder / "model.yaml").write_text(yaml.safe_dump(text))
    return folder
