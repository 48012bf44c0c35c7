"""A Llama of 125 million weights, as onnxruntime-genai's model builder writes one with `prune_lm_head`."""

from itertools import product
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.models import EOS, TinyLlama, write_model

LETTERS = "etaoinshrdlu"
HEAD = "lm_head.MatMul.weight"
LLAMA = TinyLlama(
    layers=12,
    hidden=768,
    heads=12,
    kv_heads=4,
    head_size=64,
    intermediate=2048,
    vocabulary_size=32_000,
    graph_context_length=256,
    context_length=256,
    slots=32,
    prefill_chunk_tokens=128,
    step_tokens=128,
)
"""A slot for each caller. A prompt is one chunk, and a step prefills one: bare, that gave 319 tokens/s, and prefilling
all that had room at once gave 330, but makes every first token late."""


def write(repository: Path, name: str = "llama", shape: TinyLlama = LLAMA) -> Path:
    """Writes NAME/1 into a model repository and returns that folder."""
    folder = write_model(repository, name, shape=shape)
    graph = folder / "model.onnx"
    model = onnx.load(graph, load_external_data=False)
    _prune_head(model.graph, shape)
    graph.write_bytes(model.SerializeToString())
    tokenizer(shape.vocabulary_size).save(str(folder / "tokenizer.json"))
    return folder


def tokenizer(size: int) -> Tokenizer:
    """Byte-level, with as many tokens as the model has: the end of text, the 256 bytes, then groups of letters."""
    groups = ("".join(letters) for length in (4, 5) for letters in product(LETTERS, repeat=length))
    words = [EOS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *groups]
    vocabulary = {word: index for index, word in enumerate(words[:size])}
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([EOS])
    return built


def _prune_head(graph: onnx.GraphProto, shape: TinyLlama) -> None:
    """Logits of the last position alone: [batch, 1, vocabulary]."""
    head = next(node for node in graph.node if HEAD in node.input)
    place = list(graph.node).index(head)
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "last"))
    graph.node.insert(place, helper.make_node("Gather", [head.input[0], "last"], ["pruned"], axis=1))
    head.input[0] = "pruned"
    logits = next(port for port in graph.output if port.name == "logits")
    logits.type.tensor_type.shape.dim[1].dim_value = 1
