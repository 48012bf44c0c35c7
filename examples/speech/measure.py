"""All the measures of a trained model, as one record that the card is written from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from examples.speech import train
from examples.speech.corpus import Corpus
from examples.speech.optimise import Candidate
from examples.speech.score import Score
from examples.speed import Speed, matmul_peak_flops, step_flops
from examples.training.history import History
from examples.training.loop import Recipe, autocast
from examples.training.processes import Group

PEAK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A version through the service: its scores by condition, and how many transcripts were those without it."""

    version: str
    scores: Mapping[str, Score]
    equal: int


def read(path: Path) -> dict[str, Any]:
    """The record so far."""
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return record


def note(path: Path, **measures: Any) -> None:
    """Add to the record, or replace what is there of these names."""
    path.write_text(json.dumps(read(path) | measures, indent=1))


def of_score(score: Score) -> dict[str, Any]:
    return asdict(score) | {"wer": score.wer}


def of_scores(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: of_score(score) for name, score in scores.items()}


def of_candidate(candidate: Candidate) -> dict[str, Any]:
    return asdict(candidate) | {"score": of_score(candidate.score)}


def of_served(served: Served) -> dict[str, Any]:
    return {"version": served.version, "scores": of_scores(served.scores), "equal": served.equal}


def speed(corpus: Corpus, recipe: Recipe, history: History, group: Group) -> Speed:
    """Of the training that has been, waiting for its rows included."""
    task = train.Hearing(corpus, corpus, recipe, group)
    network, rows = task.network.to(group.device), task.batch(0)

    def step() -> None:
        with autocast(group.device, recipe.precision):
            loss = task.loss(network, rows)
        loss.backward()

    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    return Speed(
        amount=history.rate,
        unit=task.unit,
        flops=step_flops(step) / task.amount(rows) * history.rate,
        peak=matmul_peak_flops(PEAK_S, dtype, group.device),
    )
