"""Texts through a real BERT, its tokenizer and the batch engine: the vectors, alone, padded, and among others."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from bench.models import bert
from millrace.engine import Output, Work
from millrace.errors import Code
from millrace.v1.tasks_pb2 import EmbedResponse
from services.worker.batch import BatchEngine
from tests.graphs import affine, model
from tests.worker.steps import step
from tests.worker.tasks.texts import (
    MAX_TOKENS,
    SHAPE,
    answer,
    answers,
    embed_work,
    embedded,
    embedder,
    failure,
    states,
    text_engine,
    tokenizer,
    vectors,
    weights,
)

TEXTS = [
    "the cat sat on a mat",
    "",
    "A DOG ran.",
    "über Ströme, 数据 and 🙂!",
    "dogs running, cats sitting; the river ran on and on",
    "зачем",
    "the " * 30,
    "stone",
]
MODULES = [
    {"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
]
NORMALISING = [*MODULES, {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}]


def ids(text: str) -> list[int]:
    return list(tokenizer().encode(text).ids)


def reference(text: str, pooling: str = "mean") -> Any:
    found = states(ids(text))
    vector = {"mean": found.mean(axis=0), "cls": found[0], "last": found[-1], "max": found.max(axis=0)}[pooling]
    return vector / np.linalg.norm(vector)


def sentence_files(modules: list[dict[str, str]], *, length: int = 0, **pooling: Any) -> dict[str, str]:
    files = {"modules.json": json.dumps(modules), "1_Pooling/config.json": json.dumps(pooling)}
    return files | ({"sentence_bert_config.json": json.dumps({"max_seq_length": length})} if length else {})


@pytest.fixture(scope="module")
def engine() -> BatchEngine:
    return embedder(batching={"max_rows": 4})


def test_embeddings_are_those_of_a_slow_reference(engine: BatchEngine) -> None:
    expected = np.array([reference(text) for text in TEXTS])
    np.testing.assert_allclose(embedded(engine, TEXTS), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[2]).max() > 0.01


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_states_are_pooled_as_the_file_says(pooling: str) -> None:
    found = embedded(embedder(embedding={"pooling": pooling}), TEXTS)
    np.testing.assert_allclose(found, [reference(text, pooling) for text in TEXTS], atol=1e-5)


def test_a_text_gets_alone_what_it_gets_among_others(engine: BatchEngine) -> None:
    alone = [embedded(engine, [text])[0] for text in TEXTS]
    np.testing.assert_allclose(embedded(engine, TEXTS), alone, atol=1e-5)
    batches = engine.counters()["batches"]
    found = answers(engine, *(embed_work(str(place), [text]) for place, text in enumerate(TEXTS)))
    assert engine.counters()["batches"] - batches < len(TEXTS)
    for place, vector in enumerate(alone):
        response = found[str(place)].result
        assert isinstance(response, EmbedResponse)
        np.testing.assert_allclose(vectors(response)[0], vector, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=9))
def test_any_texts_have_embeddings_in_their_order(engine: BatchEngine, texts: list[str]) -> None:
    found = embedded(engine, texts, truncate=True)
    expected = [states(np.append(ids(text)[: MAX_TOKENS - 1], 3).tolist()[: len(ids(text))]) for text in texts]
    for vector, state in zip(found, expected, strict=True):
        mean = state.mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_request_of_more_texts_than_a_run_has_rows_gets_one_answer(engine: BatchEngine) -> None:
    """Of 1,024 texts; another job gets its answer meanwhile."""
    expected = embedded(engine, TEXTS)[np.arange(1_024) % len(TEXTS)]
    engine.add(embed_work("large", [TEXTS[number % len(TEXTS)] for number in range(1_024)]))
    engine.add(embed_work("small", ["stone"]))
    steps = 0
    ended: list[Output] = []
    while len(ended) < 2:
        ended += step(engine)
        steps += 1
    small, large = ended
    assert (small.lease, large.lease, large.last, large.cost) == ("small", "large", True, 1_024)
    assert isinstance(large.result, EmbedResponse)
    np.testing.assert_allclose(vectors(large.result), expected, atol=1e-5)
    assert steps >= 1_024 // 4


def test_a_long_text_does_not_make_short_ones_as_long(engine: BatchEngine) -> None:
    rows = engine.counters()["batches"]
    embedded(engine, ["the " * 40, "a", "cat"])
    assert engine.counters()["batches"] - rows == 2


def test_tokens_are_counted_without_padding(engine: BatchEngine) -> None:
    response = answer(engine, embed_work("a", ["the cat", "", "a dog ran"]))
    assert isinstance(response, EmbedResponse)
    assert response.tokens == 4 + 2 + 5


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(engine: BatchEngine) -> None:
    texts = ["a", "the cat " * 30]
    refused = failure(engine, embed_work("a", texts))
    assert (refused.code, refused.field) == (Code.INVALID_ARGUMENT, "texts[1]")
    assert refused.message.startswith("has 62 tokens, and the model takes 48: set truncate")
    found = embedded(engine, texts, truncate=True)
    mean = states([*ids(texts[1])[: MAX_TOKENS - 1], 3]).mean(axis=0)
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize(
    ("work", "field"),
    [
        (embed_work("a", []), "texts"),
        (embed_work("a", ["a"] * 1_025), "texts"),
        (embed_work("a", ["a", "x" * ((1 << 20) + 1)], truncate=True), "texts[1]"),
        (Work(lease="a", job="a", task="embed", request=b"\xff"), ""),
    ],
    ids=["none", "too many", "of a megabyte", "no message"],
)
def test_bad_requests_are_refused_with_the_field(engine: BatchEngine, work: Work, field: str) -> None:
    refused = failure(engine, work)
    assert (refused.code, refused.field) == (Code.INVALID_ARGUMENT, field)
    assert embedded(engine, ["a"]).shape == (1, SHAPE.hidden)


def test_an_embedding_that_is_not_finite_fails_alone() -> None:
    broken = dict(weights())
    table = broken["embeddings.word_embeddings.weight"].copy()
    table[ids("stone")[1]] = np.nan
    graph = bert.build(SHAPE, broken | {"embeddings.word_embeddings.weight": table}, pooled=False)
    engine = text_engine(graph, "text-embedding")
    found = answers(engine, embed_work("good", ["the cat"]), embed_work("bad", ["a", "stone"]))
    assert found["good"].failure is None
    assert found["bad"].failure is not None
    assert (found["bad"].failure.code, found["bad"].result) == (Code.INTERNAL, None)
    assert "texts[1]" in found["bad"].failure.message


def test_an_aborted_request_ends_between_its_runs(engine: BatchEngine) -> None:
    engine.add(embed_work("large", TEXTS * 10))
    assert engine.step() == []
    engine.abort("large")
    rows = engine.counters()["rows"]
    while engine.step() is not None:
        pass
    assert engine.counters()["rows"] - rows <= 4


def test_a_request_whose_answer_is_in_the_log_only_ends(engine: BatchEngine) -> None:
    done = embed_work("a", ["a"])
    work = Work(lease="a", job="a", task="embed", request=done.request, results=[EmbedResponse().SerializeToString()])
    (output,) = answers(engine, work).values()
    assert (output.result, output.failure) == (None, None)


def test_a_graph_that_pools_needs_no_pooling() -> None:
    engine = text_engine(bert.build(SHAPE, weights()), "text-embedding")
    np.testing.assert_allclose(embedded(engine, TEXTS), [reference(text) for text in TEXTS], atol=1e-5)


def test_a_graph_of_one_row_runs_texts_one_by_one() -> None:
    table = np.random.default_rng(6).standard_normal((SHAPE.vocabulary, 4)).astype(np.float32)
    graph = model(
        [("Gather", ["table", "input_ids"], ["token_embeddings"], {})],
        {"input_ids": (TensorProto.INT64, [1, "sequence"])},
        {"token_embeddings": (TensorProto.FLOAT, [1, "sequence", 4])},
        {"table": table},
    )
    found = embedded(text_engine(graph, "text-embedding", embedding={"normalise": False}), TEXTS)
    np.testing.assert_allclose(found, [table[ids(text)].mean(axis=0) for text in TEXTS], atol=1e-5)


def test_dimensions_are_the_first_ones_brought_to_length_1() -> None:
    found = embedded(embedder(embedding={"dimensions": 5}), TEXTS)
    cut = np.array([reference(text)[:5] for text in TEXTS])
    np.testing.assert_allclose(found, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)


def test_what_sentence_transformers_wrote_needs_no_keys() -> None:
    files = sentence_files(NORMALISING, length=20, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    engine = embedder(files=files, text=None)
    np.testing.assert_allclose(embedded(engine, ["the cat"])[0], reference("the cat", "cls"), atol=1e-5)
    assert "the model takes 20" in failure(engine, embed_work("a", ["a " * 30])).message


def test_lengths_are_kept_where_nothing_normalises() -> None:
    expected = states(ids("the cat")).max(axis=0)
    engine = embedder(files=sentence_files(MODULES, pooling_mode_max_tokens=True))
    np.testing.assert_allclose(embedded(engine, ["the cat"])[0], expected, atol=1e-4)
    assert np.linalg.norm(expected) > 1.1


@pytest.mark.parametrize(
    ("files", "keys", "sentence"),
    [
        ({}, {"embedding": {"pooling": "sum"}}, "embedding.pooling: "),
        ({}, {"embedding": {"output": "logits"}}, "embedding.output: .*last_hidden_state"),
        ({}, {"embedding": {"dimensions": 33}}, "embedding.dimensions: .* has 32"),
        ({}, {"text": {"max_token": 3}}, "text.max_token: "),
        ({}, {"text": {}}, "text.max_tokens: must be given"),
        ({}, {"text": {"max_tokens": 2}}, "text.max_tokens: 2 leave none beside 2"),
        ({}, {"text": {"max_tokens": 9, "tokenizer": "other.json"}}, "other.json is missing"),
        ({}, {"text": {"max_tokens": 9, "token_type_ids": "kinds"}}, "takes token_type_ids too"),
        ({}, {"text": {"max_tokens": 9, "input_ids": "ids"}}, "takes input_ids too"),
        ({"tokenizer.json": "{}"}, {}, "text.tokenizer: tokenizer.json: "),
        (sentence_files([*MODULES, {"type": "x.Dense", "path": "2"}]), {}, "there is no Dense here"),
        (sentence_files(MODULES, pooling_mode_weightedmean_tokens=True), {}, "weightedmean_tokens, which is not known"),
        (sentence_files([{"type": "Pooling", "path": "../up"}]), {}, "must lie inside"),
        (sentence_files([{"type": "Pooling", "path": "away"}]), {}, "away/config.json is missing"),
        ({"modules.json": "{}"}, {}, "modules.json: holds no modules"),
    ],
)
def test_a_folder_that_does_not_fit_is_not_served(files: dict[str, str], keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        embedder(files=files, **keys)


def test_a_graph_for_no_texts_is_not_served_as_one() -> None:
    with pytest.raises(ValueError, match="takes x too, which nothing here makes"):
        text_engine(affine(), "text-embedding")
