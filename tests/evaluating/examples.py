"""Data sets, answers and results as tests need them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from millrace.evaluating.asking import Answer, Outcome, Target
from millrace.evaluating.data import Dataset, Example
from millrace.evaluating.kinds import Kind
from millrace.evaluating.result import Data, Result
from millrace.evaluating.scores.scoring import Resampling, compare, system

TARGET = Target(model="animals", version="2", task="text-classification", digest="d1")
BEFORE = Target(model="animals", version="1", task="text-classification", digest="d0")
FEW = Resampling(resamples=200)


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def make_dataset(examples: Sequence[Example], kind: Kind = "classify", name: str = "animals.jsonl") -> Dataset:
    return Dataset(name=name, kind=kind, sha256="00" * 32, examples=examples)


def labelled(*truths: str) -> list[Example]:
    return [Example(id=str(place), text=f"text {place}", truth=truth) for place, truth in enumerate(truths)]


def scored(**scores: float) -> Answer:
    return Answer(label=max(scores, key=lambda name: scores[name]), scores=scores)


def make_result(
    dataset: Dataset, outcomes: Mapping[str, Outcome], before: Mapping[str, Outcome] | None = None
) -> Result:
    return Result(
        schema="millrace.evaluation/1",
        kind=dataset.kind,
        data=Data(name=dataset.name, sha256=dataset.sha256, examples=len(dataset.examples)),
        started_at="2026-01-02T03:04:05+00:00",
        seconds=1.5,
        settings={"model": "animals", "resamples": FEW.resamples},
        versions={"python": "3"},
        system=system(TARGET, dataset, outcomes, FEW),
        against=system(BEFORE, dataset, before, FEW) if before is not None else None,
        comparison=compare(dataset.kind, dataset.examples, (BEFORE, before), (TARGET, outcomes), FEW)
        if before is not None
        else None,
    )
