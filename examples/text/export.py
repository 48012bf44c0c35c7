"""From trained weights to model folders: graphs by onnxruntime-genai's model builder, and the worker's `model.yaml`.

The builder writes GroupQueryAttention graphs: `input_ids` and `attention_mask`, and for each layer a past and a present
key and value, in fp32. Only the way in which the weights are stored differs.
"""

import shutil
import subprocess
import sys
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from examples.publish import publishing
from examples.text.tokenizer import CONTEXT_TOKENS

MODEL_FILES = ("genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json")

MODEL_YAML = """\
name: {name}
task: text-generation
engine: generation
description: A small Llama-architecture model that continues Python source, trained on the Python standard library.
licence: Apache-2.0
graphs:
  cpu: {{path: ., precision: {precision}}}
slots: 64
context_length: {context_tokens}
defaults: {{temperature: 0.8, top_p: 0.95, max_tokens: 256}}
"""


class Storage(StrEnum):
    """How the weights of matrices are stored.

    FP16 weights become fp32 when the graph is loaded, and everything is computed in fp32. INT8 and INT4 are MatMulNBits
    blocks of 32 values, whose kernels round activations to 8 bits too (`accuracy_level` 4).
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"

    @property
    def precision(self) -> str:
        """What `model.yaml` calls it: what the graph computes in."""
        return "fp32" if self is Storage.FP16 else self.value


def build(weights: Path, storage: Storage, folder: Path) -> None:
    """Write the graph of the model in `weights` to `folder`. Raises RuntimeError when the builder fails."""
    shutil.rmtree(folder, ignore_errors=True)
    cache = folder.with_name(f"{folder.name}-cache")
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    command += ["-i", str(weights), "-o", str(folder), "-p", storage.precision, "-e", "cpu", "-c", str(cache)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(cache, ignore_errors=True)
    if result.returncode != 0:
        raise RuntimeError(f"the model builder failed for {storage}:\n{result.stdout[-2000:]}{result.stderr[-4000:]}")
    if storage is Storage.FP16:
        halve(folder / "model.onnx")


def halve(path: Path) -> None:
    """Store the matrices of the graph at `path` in fp16, each behind a Cast that ONNX Runtime folds at load time."""
    graph = (model := onnx.load(path)).graph
    casts = []
    for index, tensor in enumerate(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2 or tensor.name.endswith("_cache"):
            continue
        stored = f"{tensor.name}.fp16"
        casts.append(helper.make_node("Cast", [stored], [tensor.name], f"/{stored}/Cast", to=onnx.TensorProto.FLOAT))
        values = numpy_helper.to_array(tensor).astype(np.float16)
        graph.initializer[index].CopyFrom(numpy_helper.from_array(values, stored))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    data = path.with_name("model.onnx.data")
    data.unlink()
    onnx.save_model(model, path, save_as_external_data=True, location=data.name)


def ship(built: Path, storage: Storage, folder: Path) -> None:
    """Copy a built model to `folder`, with the `model.yaml` that the worker reads. Replaces what is there, at once."""
    description = MODEL_YAML.format(name=folder.parent.name, precision=storage.precision, context_tokens=CONTEXT_TOKENS)
    with publishing(folder) as unfinished:
        for name in MODEL_FILES:
            shutil.copyfile(built / name, unfinished / name)
        (unfinished / "model.yaml").write_text(description)


def size_bytes(folder: Path) -> int:
    """The sum of the sizes of a folder's files."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
