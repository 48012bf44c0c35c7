"""Measures of labels against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from millrace.evaluating.asking import Answer
from millrace.evaluating.scores.classification import Classification, ordered
from millrace.evaluating.scores.curves import Ranking
from millrace.evaluating.scores.resampling import draws, measures
from tests.evaluating.examples import scored

LABELS = ("cat", "dog", "owl")


def noisy(count: int, seed: int = 0) -> Classification:
    """Right about two times in three, with scores of which some are equal."""
    generator = np.random.default_rng(seed)
    truths = generator.choice(LABELS, count, p=[0.6, 0.3, 0.1])
    answers = []
    for truth in truths:
        row = np.round(generator.dirichlet([3.0 if label == truth else 1.0 for label in LABELS]), 1)
        answers.append(scored(**dict(zip(LABELS, row.tolist(), strict=True))))
    return Classification([str(truth) for truth in truths], answers)


def test_measures_of_one_weight_each_are_scikit_learns() -> None:
    scorer = noisy(300)
    again = scorer.resampled(np.ones((2, 300)), costly=True)
    point = scorer.point()
    assert set(point) == set(again)
    for name, value in point.items():
        assert again[name] == pytest.approx([value, value]), name
    assert point["f1_macro"] == metrics.f1_score(scorer.truths, scorer.given, average="macro")
    assert point["accuracy"] == point["f1_micro"] == point["recall_weighted"]


def test_measures_of_a_resample_are_scikit_learns_of_the_drawn_examples() -> None:
    scorer = noisy(80)
    (weights,) = draws(80, 5, seed=3)
    found = scorer.resampled(weights, costly=True)
    for place, row in enumerate(weights):
        drawn = np.repeat(np.arange(80), row.astype(int))
        truths, given = ([texts[one] for one in drawn] for texts in (scorer.truths, scorer.given))
        for average in ("macro", "weighted", "micro"):
            expected = metrics.precision_recall_fscore_support(truths, given, average=average, zero_division=0)
            for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
                assert found[f"{name}_{average}"][place] == pytest.approx(value), (name, average)


def test_areas_under_curves_are_scikit_learns_for_any_weights() -> None:
    generator = np.random.default_rng(5)
    positive, scores = generator.random(60) < 0.3, np.round(generator.random(60), 1)
    (weights,) = draws(60, 20, seed=1)
    auc, precision = Ranking(positive, scores).areas(weights)
    for place, row in enumerate(weights):
        assert auc[place] == pytest.approx(metrics.roc_auc_score(positive, scores, sample_weight=row))
        assert precision[place] == pytest.approx(metrics.average_precision_score(positive, scores, sample_weight=row))


def test_a_resample_of_one_kind_alone_has_no_area() -> None:
    auc, precision = Ranking(np.array([True, False]), np.array([0.9, 0.1])).areas(np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(auc[0])
    assert np.isnan(precision[0])
    assert (auc[1], precision[1]) == (1.0, 1.0)


def test_data_of_one_class_have_no_curves() -> None:
    scorer = Classification(["cat"] * 3, [scored(cat=0.9, dog=0.1)] * 3)
    point = scorer.point()
    assert point["accuracy"] == point["f1_macro"] == 1
    assert "auc_macro" not in point
    assert scorer.confusion() == [[3]]


def test_a_class_that_is_only_given_counts_against_the_macro_average() -> None:
    scorer = Classification(["cat", "cat"], [scored(cat=1.0), Answer(label="unicorn")])
    assert scorer.labels == ["cat", "unicorn"]
    assert scorer.point()["recall_macro"] == 0.25
    assert [row[1:] for row in scorer.per_label()] == [(1.0, 0.5, pytest.approx(2 / 3), 2), (0.0, 0.0, 0.0, 0)]


def test_answers_without_scores_have_no_curves_and_no_calibration() -> None:
    scorer = Classification(["a", "b"], [Answer(label="a"), Answer(label="a")])
    assert not {"auc_macro", "ece"} & set(scorer.point())
    assert set(scorer.point()) == set(scorer.resampled(np.ones((1, 2)), costly=True))


def test_calibration_is_the_gap_between_being_sure_and_being_right() -> None:
    scorer = Classification(["a", "a", "b", "b"], [scored(a=0.9, b=0.1)] * 4)
    assert scorer.point()["ece"] == pytest.approx(0.4)
    assert [pytest.approx(one) for one in scorer.bins()] == [(0.9, 0.5, 4)]


def test_an_interval_holds_the_value_and_narrows_with_more_examples() -> None:
    few, many = (measures(noisy(count), resamples=300, seed=0) for count in (50, 2000))
    for small, large in zip(few, many, strict=True):
        assert small.low is not None
        assert small.high is not None
        assert large.low is not None
        assert large.high is not None
        assert large.low <= large.value <= large.high or large.name == "ece"
        assert large.high - large.low < small.high - small.low


def test_the_same_seed_gives_the_same_intervals() -> None:
    first, second, other = (measures(noisy(100), resamples=100, seed=seed) for seed in (1, 1, 2))
    assert first == second != other


def test_a_share_of_all_has_an_interval_that_does_not_claim_to_be_certain() -> None:
    scorer = Classification(["a"] * 20, [Answer(label="a")] * 20)
    accuracy = measures(scorer, resamples=100, seed=0)[0]
    assert accuracy.value == accuracy.high == 1
    assert accuracy.low == pytest.approx(0.8389, abs=1e-4)


def test_many_labels_do_not_make_it_slow() -> None:
    truths = [str(place % 900) for place in range(3000)]
    answers = [Answer(label=str((place * 7) % 900)) for place in range(3000)]
    assert len(measures(Classification(truths, answers), resamples=200, seed=0)) == 10


def test_labels_that_are_numbers_are_ordered_as_numbers() -> None:
    assert ordered({"10", "9", "b", "a"}) == ["9", "10", "a", "b"]
