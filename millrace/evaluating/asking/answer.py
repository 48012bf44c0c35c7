"""What came of an example: the part of the model's answer by which it is judged, or why there is none."""

import base64
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from millrace.evaluating.kinds import Strict

Vector: TypeAlias = npt.NDArray[np.float32]
MOST_SCORES = 1000


class Answer(Strict):
    label: str | None = None
    scores: Mapping[str, float] | None = Field(default=None, description="by label, probabilities; of many the best")
    text: str | None = None
    nats: float | None = Field(default=None, description="minus the sum of the tokens' log-probabilities")
    tokens: int | None = Field(default=None, description="in that sum: all but the first")
    bytes: int | None = Field(default=None, description="of these tokens")
    vector: str | None = Field(default=None, description="little-endian float32, base64")


class Failure(Strict):
    """The service refused the example, or its job failed."""

    code: str
    reason: str
    message: str


Outcome = Answer | Failure


def from_scores(scores: Sequence[tuple[str, float]]) -> Answer:
    """Labels with their probabilities: the best is the answer, of equal ones the first. Raises ValueError for scores
    that are not finite, or none at all."""
    if not scores or not all(np.isfinite(score) for _, score in scores):
        raise ValueError("the scores are not finite" if scores else "there are no scores")
    best = max(scores, key=lambda one: one[1])[0]
    kept = sorted(scores, key=lambda one: -one[1])[:MOST_SCORES] if len(scores) > MOST_SCORES else scores
    return Answer(label=best, scores={name: float(f"{score:.9g}") for name, score in kept})


def to_vector(text: str) -> Vector:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


def from_vector(values: Sequence[float]) -> Answer:
    """Raises ValueError for a vector that is not finite."""
    vector = np.array(values, "<f4")
    if not vector.size or not np.isfinite(vector).all():
        raise ValueError("the vector is not finite")
    return Answer(vector=base64.b64encode(vector.tobytes()).decode())
