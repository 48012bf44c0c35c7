"""Two models on the same examples."""

from collections.abc import Sequence

import pytest

from millrace.evaluating.asking import Answer, Failure, Outcome
from millrace.evaluating.judging import bound, missed
from millrace.evaluating.scores.scoring import compare, mcnemar
from tests.evaluating.examples import BEFORE, FEW, TARGET, labelled, make_dataset, make_result


def answers(labels: Sequence[str]) -> dict[str, Outcome]:
    return {str(place): Answer(label=label) for place, label in enumerate(labels)}


@pytest.mark.parametrize(
    ("only_before", "only_after", "p_value", "verdict"),
    [
        (0, 0, 1.0, "same"),
        (5, 5, 1.0, "same"),
        (0, 5, 0.0625, "same"),
        (0, 6, 0.03125, "better"),
        (10, 2, 0.03857421875, "worse"),
    ],
)
def test_mcnemars_test_is_a_coins(only_before: int, only_after: int, p_value: float, verdict: str) -> None:
    found = mcnemar(only_before, only_after)
    assert found["p_value"] == pytest.approx(p_value)
    assert found["verdict"] == verdict


def test_labels_are_compared_example_by_example() -> None:
    examples = labelled(*["a"] * 20)
    before, after = answers(["a"] * 12 + ["b"] * 8), answers(["b"] * 2 + ["a"] * 18)
    found = compare("classify", examples, (BEFORE, before), (TARGET, after), FEW)
    assert (found.only_before, found.only_after, found.examples) == (2, 8, 20)
    assert found.rows[0].name == "accuracy"
    assert found.rows[0].difference == pytest.approx(0.3)
    assert (found.before, found.after, found.verdict) == ("animals/1", "animals/2", "same")


def test_only_what_both_have_answered_is_compared() -> None:
    examples = labelled("a", "a", "a")
    failed = Failure(code="INVALID_ARGUMENT", reason="INVALID_REQUEST", message="no")
    before: dict[str, Outcome] = {"0": Answer(label="a"), "1": failed, "2": Answer(label="a")}
    found = compare("classify", examples, (BEFORE, before), (TARGET, answers(["b", "a"])), FEW)
    assert (found.examples, found.only_before) == (1, 1)
    with pytest.raises(ValueError, match="in common"):
        compare("classify", examples, (BEFORE, {}), (TARGET, answers(["a"])), FEW)


def test_costs_are_compared_by_drawing_the_same_examples() -> None:
    """Texts differ far more than the models do, which each text shows alike."""
    examples = labelled(*[""] * 30)
    before, after = (
        {str(one): Answer(nats=10.0 * (one + 1) * factor, tokens=20, bytes=60) for one in range(30)}
        for factor in (1.0, 1.01)
    )
    found = compare("perplexity", examples, (BEFORE, before), (TARGET, after), FEW)
    assert found.primary == "perplexity"
    assert found.verdict == "worse"
    assert compare("perplexity", examples, (BEFORE, after), (TARGET, before), FEW).verdict == "better"
    assert compare("perplexity", examples, (BEFORE, before), (TARGET, before), FEW).verdict == "same"


def test_a_result_is_judged_by_bounds() -> None:
    dataset = make_dataset(labelled(*"aaab"))
    result = make_result(dataset, answers("aaaa"), before=answers("aaaa"))
    given = [("--fail-under", "accuracy=0.75"), ("--fail-under", "accuracy=0.8"), ("--fail-over", "f1_macro=0.1")]
    bounds = [bound(side, text, "classify") for side, text in given]
    assert missed(result, bounds, if_worse=True) == [
        "--fail-under accuracy=0.8: it is 0.75",
        "--fail-over f1_macro=0.1: it is 0.428571",
    ]
    undefined = [bound("--fail-under", "auc_macro=0.5", "classify")]
    assert missed(result, undefined, if_worse=False) == ["--fail-under auc_macro=0.5: these data do not define it"]


def test_a_worse_model_fails_where_that_is_asked() -> None:
    dataset = make_dataset(labelled(*["a"] * 10))
    result = make_result(dataset, answers(["b"] * 10), before=answers(["a"] * 10))
    assert missed(result, [], if_worse=True) == ["--fail-if-worse: animals/2 is worse than animals/1"]
    assert missed(result, [], if_worse=False) == []


@pytest.mark.parametrize("text", ["accuracy", "accuracy=", "accuracy=much", "accuracy=nan", "wer=0.1", "=1"])
def test_bounds_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--fail-under"):
        bound("--fail-under", text, "classify")


def test_an_evaluation_without_answers_has_no_result() -> None:
    failed = Failure(code="INVALID_ARGUMENT", reason="INVALID_REQUEST", message="text is missing")
    with pytest.raises(ValueError, match=r"animals/2 answered none of the 1 examples: text is missing"):
        make_result(make_dataset(labelled("a")), {"0": failed})
