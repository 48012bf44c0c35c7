"""The same weights in both dialects: a paged decoder, and the logits that GroupQueryAttention gives for whole texts."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper

from millrace.engine import EngineContext
from services.worker import repository
from services.worker.generation import config
from services.worker.generation.config import ModelConfig
from services.worker.generation.decoder import Chunk, TokenIds
from services.worker.generation.paged import PagedDecoder
from services.worker.generation.paged.decoder import NO_LENGTHS, NO_TOKENS
from tests.models import Llama, write_model
from tests.models.llama import build
from tests.worker.generation.paged.reference import with_reference

Floats = npt.NDArray[np.float32]
PAGED = Llama(dialect="paged", precision="fp32")
WHOLE = Llama(precision="fp32")
BLOCK = 16


def text(length: int, seed: int = 4) -> TokenIds:
    return np.random.default_rng(seed).integers(1, 300, length)


@functools.cache
def paged_config(shape: Llama = PAGED) -> ModelConfig:
    (model,), _ = repository.scan(write_model(Path(tempfile.mkdtemp()), shape=shape).parents[1])
    return config.read(EngineContext(folder=model.folder, config=model.file.model_dump(), device="cpu", threads=1))


def paged_decoder(
    shape: Llama = PAGED, *, blocks: int | None = None, captures: bool = False, **attributes: Any
) -> PagedDecoder:
    """`attributes`: of the attention nodes, in place of those that the graph has."""

    def transform(model: onnx.ModelProto) -> onnx.ModelProto:
        return with_reference(with_attributes(model, **attributes))

    settings = paged_config(shape)
    return PagedDecoder(
        settings,
        device="cpu",
        threads=1,
        captures=captures,
        transform=transform,
        blocks=blocks,
        block_size=BLOCK,
    )


@functools.cache
def whole_session(shape: Llama, **attributes: Any) -> ort.InferenceSession:
    model = with_attributes(build(shape), **attributes)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def whole(token_ids: TokenIds, shape: Llama = WHOLE, **attributes: Any) -> Floats:
    """Logits [positions, vocabulary] behind each position of a text, computed at once."""
    session = whole_session(shape, **attributes)
    feeds = {"input_ids": token_ids[np.newaxis], "attention_mask": np.ones((1, len(token_ids)), np.int64)}
    for port in session.get_inputs()[2:]:
        kind = np.int8 if port.type == "tensor(int8)" else np.float32
        feeds[port.name] = np.zeros((1, shape.kv_heads, 0, shape.head_size), kind)
    logits: Floats = session.run(["logits"], feeds)[0][0]
    return logits


def with_attributes(model: onnx.ModelProto, **attributes: Any) -> onnx.ModelProto:
    for node in model.graph.node:
        if node.op_type in ("GroupQueryAttention", "PagedAttention"):
            kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
            del node.attribute[:]
            node.attribute.extend([*kept, *(helper.make_attribute(*item) for item in attributes.items())])
    return model


def prefill(decoder: PagedDecoder, row: int, token_ids: TokenIds, *, chunk: int = BLOCK) -> Floats:
    """Opens a row, runs what is not there of its text, and answers the logits behind it."""
    for start in range(decoder.open(row, token_ids), len(token_ids), chunk):
        end = min(start + chunk, len(token_ids))
        assert decoder.reserve(row, end)
        decoder.run(NO_TOKENS, NO_LENGTHS, [Chunk(row, token_ids[start:end], start, end == len(token_ids))])
    return logits(decoder, row)


def logits(decoder: PagedDecoder, row: int) -> Floats:
    return np.array(decoder.logits.owner[row, 0])


def decode(decoder: PagedDecoder, texts: list[TokenIds], chunks: list[Chunk] | None = None) -> None:
    """Runs the last token of each text in the first rows, which hold the others, and the chunks with them."""
    for row, token_ids in enumerate(texts):
        assert decoder.reserve(row, len(token_ids))
    for chunk in chunks or []:
        assert decoder.reserve(chunk.row, chunk.end)
    token_ids = np.array([[token_ids[-1]] for token_ids in texts], np.int64).reshape(-1, 1)
    decoder.run(token_ids, np.array([len(token_ids) - 1 for token_ids in texts], np.int32), chunks or [])
