"""A model whose best two tokens are always nearly equal, to show what rounding alone can do to a text."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.models import TinyLlama, write_model

HEAD = "lm_head.MatMul.weight"
APART = 1e-6


def write_twins(repository: Path, name: str, shape: TinyLlama, *, apart: float = APART, **extra: Any) -> Path:
    """Writes NAME/1: each token of the vocabulary's second half has the weights of one of the first, but for a random
    share `apart` of each. `extra`: further keys of model.yaml."""
    folder = write_model(repository, name, shape=shape, **extra)
    model = onnx.load(folder / "model.onnx")
    (head,) = (tensor for tensor in model.graph.initializer if tensor.name == HEAD)
    weights = np.array(numpy_helper.to_array(head))
    half = shape.vocabulary_size // 2
    noise = np.random.default_rng(shape.seed).standard_normal((len(weights), half))
    weights[:, half:] = weights[:, :half] * (1 + apart * noise)
    head.CopyFrom(numpy_helper.from_array(weights, HEAD))
    (folder / "model.onnx.data").unlink()
    onnx.save(model, folder / "model.onnx")
    return folder
