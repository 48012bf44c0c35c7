"""Texts for small models: BERTs of random weights with a WordPiece tokenizer, their folders, and what they answer."""

import functools
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from bench.models import bert
from millrace.engine import Failure, Output, Work
from millrace.v1.tasks_pb2 import ClassifyRequest, ClassifyResponse, EmbedRequest, EmbedResponse
from services.worker import repository
from services.worker.batch import BatchEngine

Vector = npt.NDArray[np.float32]
WORDS = [*"!,.üé数据", "the", "cat", "dog", "sat", "ran", "on", "mat", "river", "stone", "##s", "##ing", "##ed"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAX_TOKENS = 48
SHAPE = bert.Bert(layers=2, hidden=32, heads=4, intermediate=64, vocabulary=64, positions=MAX_TOKENS)


def tokenizer() -> Tokenizer:
    """BERT's, of a few words and all letters."""
    pieces = [*SPECIAL, *WORDS, *"abcdefghijklmnopqrstuvwxyz"]
    built = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    built.add_special_tokens(SPECIAL)
    return built


@functools.cache
def weights() -> dict[str, Vector]:
    """Random ones of SHAPE, by transformers' names. Gains and shifts are random too: ones and noughts hide mistakes."""
    dice = np.random.default_rng(3)
    size, inner = SHAPE.hidden, SHAPE.intermediate
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{name}_embeddings.weight": (rows, size)
        for name, rows in (("word", SHAPE.vocabulary), ("token_type", 2), ("position", SHAPE.positions))
    }
    norms = ["embeddings"]
    for layer in (f"encoder.layer.{index}" for index in range(SHAPE.layers)):
        sizes = {f"attention.self.{part}": (size, size) for part in ("query", "key", "value")}
        sizes |= {"attention.output.dense": (size, size), "intermediate.dense": (inner, size)}
        for part, (outputs, inputs) in (sizes | {"output.dense": (size, inner)}).items():
            shapes |= {f"{layer}.{part}.weight": (outputs, inputs), f"{layer}.{part}.bias": (outputs,)}
        norms += [f"{layer}.attention.output", f"{layer}.output"]
    for norm in norms:
        shapes |= {f"{norm}.LayerNorm.{part}": (size,) for part in ("weight", "bias")}
    return {name: _drawn(dice, name, dims) for name, dims in shapes.items()}


def _drawn(dice: np.random.Generator, name: str, dims: tuple[int, ...]) -> Vector:
    drawn = dice.standard_normal(dims)
    if len(dims) == 1:
        drawn = 0.2 * drawn + ("LayerNorm.weight" in name)
    elif "_embeddings" not in name:
        drawn = drawn * dims[1] ** -0.5
    return drawn.astype(np.float32)


def states(ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """[tokens, hidden] of one text, computed head by head (J. Devlin et al., 2019)."""
    given = {name: array.astype(np.float64) for name, array in weights().items()}
    words, types, places = (given[f"embeddings.{n}_embeddings.weight"] for n in ("word", "token_type", "position"))
    state = _norm(given, "embeddings", words[list(ids)] + types[0] + places[: len(ids)])
    for layer in (f"encoder.layer.{index}" for index in range(SHAPE.layers)):
        query, key, value = (_linear(given, f"{layer}.attention.self.{p}", state) for p in ("query", "key", "value"))
        heads = []
        for head in np.split(np.arange(SHAPE.hidden), SHAPE.heads):
            scores = query[:, head] @ key[:, head].T / np.sqrt(len(head))
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(shares / shares.sum(axis=1, keepdims=True) @ value[:, head])
        attended = _linear(given, f"{layer}.attention.output.dense", np.concatenate(heads, axis=1))
        state = _norm(given, f"{layer}.attention.output", attended + state)
        inner = _linear(given, f"{layer}.intermediate.dense", state)
        inner = inner * (1 + np.vectorize(math.erf)(inner / np.sqrt(2))) / 2
        state = _norm(given, f"{layer}.output", _linear(given, f"{layer}.output.dense", inner) + state)
    return np.asarray(state)


def _linear(given: Mapping[str, Any], name: str, state: Any) -> Any:
    return state @ given[f"{name}.weight"].T + given[f"{name}.bias"]


def _norm(given: Mapping[str, Any], name: str, state: Any) -> Any:
    centred = state - state.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return scaled * given[f"{name}.LayerNorm.weight"] + given[f"{name}.LayerNorm.bias"]


def write_text_model(
    graph: onnx.ModelProto, task: str, files: Mapping[str, str] | None = None, **keys: Any
) -> repository.Model:
    """A folder of its own, with a tokenizer; `files` by their names beside it; `keys` of model.yaml."""
    folder = Path(tempfile.mkdtemp()) / "texts" / "1"
    folder.mkdir(parents=True)
    onnx.save(graph, folder / "model.onnx")
    for name, content in ({"tokenizer.json": tokenizer().to_str()} | dict(files or {})).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    file = {"name": "texts", "task": task, "engine": "batch", "graphs": {"cpu": {"path": "model.onnx"}}, **keys}
    (folder / "model.yaml").write_text(yaml.safe_dump(file))
    (model,), broken = repository.scan(folder.parents[1])
    assert not broken, broken
    return model


def text_engine(graph: onnx.ModelProto, task: str, files: Mapping[str, str] | None = None, **keys: Any) -> BatchEngine:
    keys = {"text": {"max_tokens": MAX_TOKENS}, **keys}
    engine = repository.load(write_text_model(graph, task, files, **keys), "cpu", threads=1)
    assert isinstance(engine, BatchEngine)
    return engine


def embedder(**keys: Any) -> BatchEngine:
    return text_engine(bert.build(SHAPE, weights(), pooled=False), "text-embedding", **keys)


def embed_work(lease: str, texts: Sequence[str], *, truncate: bool = False) -> Work:
    request = EmbedRequest(texts=texts, truncate=truncate).SerializeToString()
    return Work(lease=lease, job=lease, task="embed", request=request)


def classify_work(lease: str = "a", **fields: Any) -> Work:
    return Work(lease=lease, job=lease, task="classify", request=ClassifyRequest(**fields).SerializeToString())


def answers(engine: BatchEngine, *works: Work) -> dict[str, Output]:
    """Adds all, and steps until all have ended; their last outputs by lease. No one has another."""
    for work in works:
        engine.add(work)
    ended: dict[str, Output] = {}
    while len(ended) < len(works):
        outputs = engine.step()
        assert outputs is not None
        for output in outputs:
            assert output.last
            ended[output.lease] = output
    assert engine.step() is None
    return ended


def answer(engine: BatchEngine, work: Work) -> EmbedResponse | ClassifyResponse:
    output = answers(engine, work)[work.lease]
    assert output.failure is None, output.failure
    assert isinstance(output.result, EmbedResponse | ClassifyResponse)
    return output.result


def failure(engine: BatchEngine, work: Work) -> Failure:
    output = answers(engine, work)[work.lease]
    assert output.failure is not None
    assert output.result is None
    return output.failure


def embedded(engine: BatchEngine, texts: Sequence[str], *, truncate: bool = False) -> Vector:
    """[texts, values]."""
    response = answer(engine, embed_work("a", texts, truncate=truncate))
    assert isinstance(response, EmbedResponse)
    return vectors(response)


def vectors(response: EmbedResponse) -> Vector:
    return np.array([embedding.values for embedding in response.embeddings], np.float32)


def classified(engine: BatchEngine, work: Work) -> dict[str, float]:
    """Scores by label, in the response's order."""
    response = answer(engine, work)
    assert isinstance(response, ClassifyResponse)
    return {label.name: label.score for label in response.labels}
