"""Texts through a real graph and the batch engine: labels for each."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from millrace.errors import Code
from services.worker.batch import BatchEngine
from tests.graphs import model
from tests.worker.tasks.texts import (
    MAX_TOKENS,
    SPECIAL,
    answers,
    classified,
    classify_work,
    failure,
    text_engine,
    tokenizer,
)

LABELS = ("cat", "dog", "neither")
SIZE = 64
WEIGHTS = np.random.default_rng(4).standard_normal((SIZE, len(LABELS))).astype(np.float32)
GRAPH = model(
    [
        ("Gather", ["weights", "input_ids"], ["scores"], {}),
        ("Cast", ["attention_mask"], ["mask"], {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["mask", "last"], ["wide"], {}),
        ("Mul", ["scores", "wide"], ["own"], {}),
        ("ReduceSum", ["own", "tokens"], ["logits"], {"keepdims": 0}),
    ],
    {name: (TensorProto.INT32, ["batch", "sequence"]) for name in ("input_ids", "attention_mask")},
    {"logits": (TensorProto.FLOAT, ["batch", len(LABELS)])},
    {"weights": WEIGHTS, "last": np.array([2]), "tokens": np.array([1])},
)
"""Adds up what each token scores, special ones included; padding would change it."""


def logits(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = WEIGHTS[tokenizer().encode(text).ids].sum(axis=0)
    return found


def probabilities(text: str) -> dict[str, float]:
    powers = np.exp(logits(text).astype(float))
    return dict(zip(("0", "1", "2"), powers / powers.sum(), strict=True))


@pytest.fixture(scope="module")
def engine() -> BatchEngine:
    return text_engine(GRAPH, "text-classification", batching={"max_rows": 8})


@pytest.mark.parametrize("text", ["the cat", "", "A dog ran on the mat!", "数据 🙂", "the " * 40])
def test_a_text_gets_its_labels(engine: BatchEngine, text: str) -> None:
    assert classified(engine, classify_work(text=text)) == pytest.approx(probabilities(text), abs=1e-5)


def test_texts_of_different_lengths_share_a_run(engine: BatchEngine) -> None:
    batches = engine.counters()["batches"]
    texts = {"a": "the cat", "b": "dog", "c": "a dog ran on", "d": "mat mat mat"}
    found = answers(engine, *(classify_work(lease, text=text, top_k=1) for lease, text in texts.items()))
    assert engine.counters()["batches"] - batches == 1
    for lease, text in texts.items():
        (label,) = found[lease].result.labels  # type: ignore[union-attr]
        assert (label.name, label.score) == pytest.approx(max(probabilities(text).items(), key=lambda pair: pair[1]))


def test_a_text_that_is_too_long_is_refused_unless_the_file_has_it_cut(engine: BatchEngine) -> None:
    text = "the cat sat on the dog " * 20
    refused = failure(engine, classify_work(text=text))
    assert (refused.code, refused.field) == (Code.INVALID_ARGUMENT, "text")
    assert f"has 122 tokens, and the model takes {MAX_TOKENS}" in refused.message
    cutting = text_engine(GRAPH, "text-classification", text={"max_tokens": 7, "truncate": True})
    assert classified(cutting, classify_work(text=text)) == pytest.approx(probabilities("the cat sat on the"), abs=1e-5)


@pytest.mark.parametrize("fields", [{"image": b"x"}, {"audio": b"x"}, {}])
def test_another_kind_of_input_is_refused(engine: BatchEngine, fields: dict[str, Any]) -> None:
    refused = failure(engine, classify_work(**fields))
    assert (refused.code, refused.field) == (Code.INVALID_ARGUMENT, "input")
    assert "must be text" in refused.message


def test_scores_that_are_not_finite_fail_alone() -> None:
    broken = WEIGHTS.copy()
    broken[tokenizer().token_to_id("stone")] = np.nan
    graph = model(
        [
            ("Gather", ["weights", "input_ids"], ["scores"], {}),
            ("ReduceSum", ["scores", "tokens"], ["logits"], {"keepdims": 0}),
        ],
        {"input_ids": (TensorProto.INT64, ["batch", "sequence"])},
        {"logits": (TensorProto.FLOAT, ["batch", 3])},
        {"weights": broken, "tokens": np.array([1])},
    )
    engine = text_engine(graph, "text-classification")
    found = answers(engine, classify_work("good", text="the cat"), classify_work("bad", text="the stone"))
    assert found["good"].failure is None
    assert found["bad"].failure is not None
    assert (found["bad"].failure.code, found["bad"].failure.reason) == (Code.INTERNAL, "MODEL_FAILED")
    assert len(SPECIAL) == 5
