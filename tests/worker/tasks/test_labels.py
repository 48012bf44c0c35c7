"""Scores become labels: their order, their probabilities, their names."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.batch.processor import Failed
from services.worker.tasks.labels import Labels, Scores
from tests.worker.tasks.test_text_classification import GRAPH, LABELS, logits
from tests.worker.tasks.texts import classified, classify_work, text_engine

NAMES = ("a", "b", "c", "d")


def respond(labels: Labels, scores: list[float], top_k: int = 0) -> list[tuple[str, float]]:
    response = labels.respond(np.array(scores, np.float32), top_k)
    return [(label.name, label.score) for label in response.labels]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ("softmax", np.exp([2.0, 1.0, 0.0, -1.0]) / np.exp([2.0, 1.0, 0.0, -1.0]).sum()),
        ("sigmoid", 1 / (1 + np.exp([-2.0, -1.0, 0.0, 1.0]))),
        ("none", [1.0, 1.0, 0.0, 0.0]),
    ],
)
def test_scores_become_probabilities(scores: Scores, expected: Any) -> None:
    found = respond(Labels(NAMES, scores), [1.0, 2.0, -1.0, 0.0])
    assert [score for _, score in found] == pytest.approx(list(expected))
    assert [name for name, _ in found[:2]] == (["a", "b"] if scores == "none" else ["b", "a"])


def test_of_equal_scores_the_first_is_first() -> None:
    assert [name for name, _ in respond(Labels(NAMES), [1, 3, 3, 1])] == ["b", "c", "a", "d"]
    found = [int(name) for name, _ in respond(Labels(()), [number % 2 for number in range(100)])]
    assert found == [*range(1, 100, 2), *range(0, 100, 2)]


@pytest.mark.parametrize(("top_k", "count"), [(0, 4), (1, 1), (3, 3), (4, 4), (2**32 - 1, 4)])
def test_top_k_is_how_many_at_most(top_k: int, count: int) -> None:
    assert len(respond(Labels(NAMES), [1, 2, 3, 4], top_k)) == count


def test_large_scores_do_not_overflow() -> None:
    assert respond(Labels(NAMES), [3e38, -3e38, 0, 1])[0] == ("a", 1.0)
    assert respond(Labels(NAMES, "sigmoid"), [3e38, -3e38, 0, 1])[-1] == ("b", 0.0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_a_failure(wrong: float) -> None:
    with pytest.raises(Failed, match="not finite"):
        Labels(NAMES).respond(np.array([0, wrong, 1, wrong], np.float32))


def test_a_label_that_is_ruled_out_has_no_probability() -> None:
    assert respond(Labels(NAMES), [0, -np.inf, 0, -np.inf])[2:] == [("b", 0.0), ("d", 0.0)]


@settings(deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30), st.integers(0, 40)
)
def test_probabilities_fall_and_are_one_together(scores: list[float], top_k: int) -> None:
    found = [score for _, score in respond(Labels(()), scores, top_k)]
    assert found == sorted(found, reverse=True)
    assert all(0 <= score <= 1 for score in found)
    if top_k == 0:
        assert sum(found) == pytest.approx(1, abs=1e-4)


def test_labels_without_names_are_their_numbers() -> None:
    assert [name for name, _ in respond(Labels(["zero"]), [3, 2, 1])] == ["zero", "1", "2"]


def test_names_come_from_the_file_of_the_output() -> None:
    engine = text_engine(GRAPH, "text-classification", {"names.txt": "\n".join(LABELS)}, labels={"logits": "names.txt"})
    assert set(classified(engine, classify_work(text="the cat"))) == set(LABELS)


@pytest.mark.parametrize("several", [False, True])
def test_transformers_own_file_has_names_and_says_how_scores_are_meant(several: bool) -> None:
    kind = "multi_label_classification" if several else "single_label_classification"
    config = {"id2label": {str(n): label for n, label in enumerate(LABELS)}, "problem_type": kind}
    found = classified(
        text_engine(GRAPH, "text-classification", {"config.json": json.dumps(config)}), classify_work(text="the cat")
    )
    raw = logits("the cat")
    expected = 1 / (1 + np.exp(-raw)) if several else np.exp(raw) / np.exp(raw).sum()
    assert found == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-5)


@pytest.mark.parametrize(
    ("files", "keys", "sentence"),
    [
        ({"names.txt": "a\nb"}, {"labels": {"logits": "names.txt"}}, "labels.logits: the graph has 3, and 2 are named"),
        ({"config.json": '{"id2label": {"0": "a", "2": "b"}}'}, {}, "does not name the labels from 0 to 1"),
        ({"config.json": '{"id2label": ["a"]}'}, {}, "id2label holds no labels"),
        ({}, {"classes": {"scores": "log"}}, "classes.scores: "),
        ({}, {"classes": {"output": "states"}}, "classes.output: .*logits"),
    ],
)
def test_labels_that_do_not_fit_are_refused(files: dict[str, str], keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        text_engine(GRAPH, "text-classification", files, **keys)
