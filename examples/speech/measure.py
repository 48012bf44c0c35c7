"""Measures as the record has them, which the card is written from."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from examples.speech.score import Score


def of_score(score: Score) -> dict[str, Any]:
    return asdict(score) | {"wer": score.wer}


def of_scores(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: of_score(score) for name, score in scores.items()}
