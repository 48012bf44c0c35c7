"""Versions to optimise: a classifier of tensors, and one of texts."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto
from tokenizers import Tokenizer, models, pre_tokenizers

from tests import graphs

ROOT = Path(__file__).parent.parent.parent
WIDTH, CLASSES, ROWS = 64, 4, 48


def network(rows: int | str = "batch") -> onnx.ModelProto:
    """Two layers; the scores lie far apart, so that small errors leave the choice as it is."""
    dice = np.random.default_rng(5)
    weights = {
        "first": dice.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 8,
        "bias": dice.standard_normal(WIDTH).astype(np.float32),
        "last": dice.standard_normal((WIDTH, CLASSES)).astype(np.float32),
    }
    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("MatMul", ["x", "first"], ["product"], {}),
        ("Add", ["product", "bias"], ["sum"], {}),
        ("Relu", ["sum"], ["hidden"], {}),
        ("MatMul", ["hidden", "last"], ["scores"], {}),
    ]
    inputs: dict[str, tuple[int, graphs.Dims]] = {"x": (TensorProto.FLOAT, [rows, WIDTH])}
    return graphs.model(nodes, inputs, {"scores": (TensorProto.FLOAT, [rows, CLASSES])}, weights)


def write(models: Path, graph: onnx.ModelProto | None = None, **keys: Any) -> Path:
    """…/net/1, with its own graph for each device."""
    folder = models / "net" / "1"
    folder.mkdir(parents=True)
    onnx.save(graph or network(), folder / "model.onnx")
    entries = {"cpu": {"path": "model.onnx", "precision": "fp32"}}
    described = {"name": "net", "task": "tensor", "engine": "batch", "graphs": entries} | keys
    (folder / "model.yaml").write_text(yaml.safe_dump(described))
    return folder


def write_data(path: Path, graph: onnx.ModelProto | None = None) -> Path:
    """Rows, each with the label that the network itself gives it."""
    import onnxruntime as ort

    x = np.random.default_rng(6).standard_normal((ROWS, WIDTH)).astype(np.float32)
    session = ort.InferenceSession((graph or network()).SerializeToString(), providers=["CPUExecutionProvider"])
    np.savez(path, x=x, label=session.run(None, {"x": x})[0].argmax(axis=1))
    return path


def write_tokenizer(folder: Path, words: int) -> None:
    """Words w2, w3, …, each the id that it names; 0 pads."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {f"w{number}": number for number in range(2, words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
