"""How much memory a model will hold, from its files: weights, caches and logits, before anything is loaded.

What a run makes and lets go is not in it, nor what a library keeps for itself.
"""

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper

from millrace.engine import EngineContext
from services.worker import untrusted
from services.worker.repository import graph_files, outline
from services.worker.repository.model import Model

BYTES_OF_WEIGHT = {"int8": 1.0, "int4": 0.5 + 4 / 32}
"""Of a matrix that is stored in fewer bits, with the scale of each block of 32."""
WEIGHT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
LOGIT_BYTES = 4


def needed_bytes(model: Model, device: str) -> int:
    """What the model is expected to hold on "cpu" or "cuda" once it is loaded, its caches full. `memory_bytes` of
    model.yaml overrides it. Raises OSError or ValueError where the files do not say, as loading it then would."""
    if model.file.memory_bytes is not None:
        return model.file.memory_bytes
    names = untrusted.files(model.folder)
    graph = graph_files.paths(model.folder, model.file, names).get(device)
    if graph is None:
        return 0 if model.file.graphs else sum(status.st_size for status in names.values())
    parsed = outline.read(model.folder / graph)
    files = {graph} | graph_files.external_files(parsed, graph)
    weights = sum(names[name].st_size for name in files)
    if model.file.engine == graph_files.GENERATION:
        return _weight_bytes(model, parsed.graph, weights, device) + _cache_bytes(model, parsed.graph, device)
    return weights * (1 if device == "cpu" else model.file.batching.sessions)


def _weight_bytes(model: Model, graph: onnx.GraphProto, stored: int, device: str) -> int:
    """Of a decoder whose weights have `stored` bytes."""
    if device != "cpu":
        return model.file.arena_bytes or stored
    per_value = BYTES_OF_WEIGHT.get(model.file.weights)
    return stored if per_value is None else stored - round(sum(_saved(graph, per_value)))


def _saved(graph: onnx.GraphProto, per_value: float) -> Iterable[float]:
    """For each matrix, by how many bytes it shrinks. A table of embeddings stays; where it is the head too, its matrix
    comes beside it."""
    tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    multiplied = {name for node in graph.node if node.op_type != "Gather" for name in node.input}
    for tensor in graph.initializer:
        if len(tensor.dims) == 2 and tensor.data_type in WEIGHT_TYPES and tensor.name in multiplied:
            values = math.prod(tensor.dims)
            kept = 0 if tensor.name in tables else values * _item_bytes(tensor.data_type)
            yield kept - values * per_value


def _cache_bytes(model: Model, graph: onnx.GraphProto, device: str) -> int:
    """Of a decoder's KV cache, of what it keeps of prompts that begin alike, and of its logits."""
    from services.worker.generation import config  # the engine's libraries, for models that need them

    context = EngineContext(folder=model.folder, config=model.file.model_dump(), device=device, threads=0)
    read = config.read(context)
    decoder = read.decoder
    types = {port.name: port.type.tensor_type.elem_type for port in graph.input}
    entry = 2 * decoder.layers * decoder.kv_heads * decoder.head_size * _item_bytes(types.get(decoder.past_key % 0, 0))
    logits = (read.slots + read.longest_run) * decoder.vocabulary_size * LOGIT_BYTES
    if decoder.is_paged:
        return (read.kv_cache_bytes or read.slots * read.context_length * entry) + logits
    prefixes = read.prefix_cache_bytes if device == "cpu" else 0
    return (read.slots + 1) * read.context_length * entry + prefixes + logits


def _item_bytes(element_type: int) -> int:
    """Of `onnx.TensorProto`; 4 for what has none."""
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).itemsize
    except (KeyError, TypeError):
        return 4
