"""The verdict over graph and original."""

import numpy as np
import pytest

from millrace.exporting.order import Precision
from millrace.exporting.parity import Array, Limits, Parity, compare, limits

STRICT = Limits(difference=1e-3, agreement=0.9)


def parity(original: Array, ours: Array, *, best: bool = False, bounds: Limits = STRICT) -> Parity:
    return Parity(limits=bounds, comparisons=list(compare("rows", {"y": original}, {"y": ours}, best=best)))


def test_a_difference_is_told_as_it_is_and_in_units_of_the_largest_value() -> None:
    found = parity(np.array([[200.0, 1.0]]), np.array([[200.0, 1.1]]))
    assert found.absolute == pytest.approx(0.1)
    assert found.relative == pytest.approx(5e-4)
    assert found.problem is None


def test_what_differs_by_more_than_the_tolerance_is_named() -> None:
    found = parity(np.array([1.0, 2.0]), np.array([1.0, 2.1]))
    assert found.problem is not None
    assert "y differs by 5.0e-02" in found.problem


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_graph_that_has_no_number_where_the_original_has_one_is_refused(value: float) -> None:
    assert parity(np.array([1.0, 2.0]), np.array([1.0, value])).problem is not None
    assert parity(np.array([1.0, value]), np.array([1.0, 2.0])).problem is not None


def test_what_is_no_number_in_both_is_equal() -> None:
    assert parity(np.array([1.0, np.nan]), np.array([1.0, np.nan])).problem is None


def test_outputs_of_nothing_but_zeros_are_compared_as_they_are() -> None:
    assert parity(np.zeros(3), np.zeros(3)).problem is None
    assert parity(np.zeros(3), np.array([0, 0, 0.01])).problem is not None


def test_labels_are_compared_by_the_share_of_equal_ones() -> None:
    original = np.array(["a", "b", "a", "b"], object)
    assert parity(original, original.copy()).agreement == 1
    found = parity(original, np.array(["a", "b", "b", "b"], object))
    assert found.agreement == 0.75
    assert found.problem is not None
    assert "75.0% of the choices" in found.problem


def test_the_best_of_the_scores_is_a_choice() -> None:
    original, near = np.array([[1.0, 0.9999], [0.0, 1.0]]), np.array([[1.0, 1.0001], [0.0, 1.0]])
    assert parity(original, near).agreement is None
    assert parity(original, near, best=True).agreement == 0.5


def test_choices_of_several_runs_are_weighed_by_their_number() -> None:
    one = list(compare("1", {"y": np.array([1])}, {"y": np.array([2])}))
    many = list(compare("9", {"y": np.ones(9, int)}, {"y": np.ones(9, int)}))
    assert Parity(limits=STRICT, comparisons=[*one, *many]).agreement == pytest.approx(0.9)


def test_another_shape_is_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"\[1, 3\].*\[2, 3\]"):
        parity(np.zeros((2, 3)), np.zeros((1, 3)))


def test_an_output_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="no output y: it has z"):
        list(compare("rows", {"y": np.zeros(1)}, {"z": np.zeros(1)}))


def test_nothing_compared_is_a_problem_unless_it_was_meant() -> None:
    assert Parity(limits=STRICT).problem == "nothing was compared"
    assert Parity(limits=STRICT, unchecked="no GPU").problem is None


def test_a_tolerance_replaces_the_difference_of_the_precision() -> None:
    assert limits(Precision.FP32, None).difference < limits(Precision.INT8, None).difference
    assert limits(Precision.INT8, 0.5) == Limits(difference=0.5, agreement=limits(Precision.INT8, None).agreement)
