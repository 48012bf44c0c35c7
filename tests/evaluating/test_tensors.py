"""Labels from the arrays that models give."""

from typing import Any

import numpy as np
import pytest

from millrace.evaluating.asking.tensors import cast, labelled
from millrace.tensors import TensorSpec

PROBABILITIES = np.array([[0.1, 0.7, 0.2]], np.float32)


def test_probabilities_are_taken_as_they_are() -> None:
    answer = labelled({"p": PROBABILITIES, "label": np.array([1])}, "", [])
    assert answer.label == "1"
    assert answer.scores == {"0": 0.100000001, "1": 0.699999988, "2": 0.200000003}


def test_logits_become_probabilities() -> None:
    answer = labelled({"logits": np.array([[1.0, 3.0]])}, "", ["cat", "dog"])
    assert answer.label == "dog"
    assert answer.scores == pytest.approx({"cat": 0.11920292, "dog": 0.88079708})


def test_of_several_outputs_the_one_that_is_called_so_has_the_scores() -> None:
    outputs = {"hidden": np.zeros((1, 8)), "logits": np.array([[0.0, 5.0]])}
    assert labelled(outputs, "", []).label == "1"
    assert labelled(outputs, "hidden", []).label == "0"


@pytest.mark.parametrize(
    ("value", "label"), [(np.array([2]), "c"), (np.array([[b"dog"]], object), "dog"), (np.array([7]), "7")]
)
def test_a_single_value_is_the_label(value: Any, label: str) -> None:
    assert labelled({"y": value}, "", ["a", "b", "c"]).label == label


@pytest.mark.parametrize(
    ("outputs", "wanted", "names", "said"),
    [
        ({"p": PROBABILITIES}, "q", [], "no output 'q'; the model gives p"),
        ({"p": PROBABILITIES}, "", ["a"], "1 names of labels, and the model gives 3 scores"),
        ({"p": np.array([[np.nan, 1.0]])}, "", [], "not finite"),
        ({"a": np.array([1]), "b": np.array([2])}, "", [], "not clear"),
        ({"a": np.zeros((1, 2)), "b": np.zeros((1, 2))}, "", [], "not clear"),
        ({"a": np.array([0.5])}, "", [], "not clear"),
    ],
)
def test_what_cannot_be_told_is_said(outputs: Any, wanted: str, names: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        labelled(outputs, wanted, names)


def test_arrays_become_a_row_of_what_the_model_takes() -> None:
    specs = [TensorSpec("x", "FP32", (-1, 2)), TensorSpec("n", "INT8", (-1,))]
    inputs = cast({"x": np.array([1, 2], np.uint8), "n": np.array(3)}, specs)
    assert (inputs["x"].dtype.name, inputs["x"].tolist()) == ("float32", [[1.0, 2.0]])
    assert (inputs["n"].dtype.name, inputs["n"].tolist()) == ("int8", [3])
    with pytest.raises(ValueError, match=r"inputs\.n: a value does not fit: the model takes INT8"):
        cast({"n": np.array(300)}, specs)
