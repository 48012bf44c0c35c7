"""A candidate's outputs against the original's, and its metric."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from millrace.exporting.parity import Tensors, compare
from millrace.optimizing.measuring.job import Judgement
from millrace.optimizing.subjects import Subject


def judge(subject: Subject, reference: Path, *, is_original: bool) -> Judgement:
    """`reference`: the folder of the original's outputs, which its own judgement writes. Raises ValueError where an
    output has another shape than there."""
    difference = 0.0
    for number, outputs in enumerate(subject.probe()):
        file = reference / f"{number}.npz"
        if is_original:
            reference.mkdir(exist_ok=True)
            np.savez(
                file, allow_pickle=False, **{name: array for name, array in outputs.items() if array.dtype.kind != "O"}
            )
        else:
            difference = max(difference, *_differences(file, outputs))
    return Judgement(metric=subject.metric, score=_score(subject), difference=difference)


def _differences(file: Path, outputs: Tensors) -> Iterator[float]:
    """In units of the output's largest value; of whole numbers the share of other ones."""
    with np.load(file) as expected:
        for one in compare("", dict(expected), outputs):
            yield one.relative if one.agreement is None else 1 - one.agreement


def _score(subject: Subject) -> float | None:
    if subject.metric is None:
        return None
    total, count = 0.0, 0
    for part, examples in subject.judge():
        total, count = total + part, count + examples
    return subject.metric.of(total, count) if count else None
