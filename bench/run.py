"""What all parts of one run share: settings, models on disk, and a line for each measurement."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench import blobs
from bench.bare_tensors import Bare
from bench.load import Load
from bench.models import repository
from bench.settings import Settings
from bench.workloads import Feed, Workload, make_requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A workload's files."""

    models: Path
    """The repository that holds its model alone."""
    graph: Path
    feed: Path
    requests: Path
    answers: Path
    outputs: Path
    """What the bare runtime gives for each row."""

    def bare(self, **options: Any) -> Bare:
        return Bare(model=str(self.graph), feed=str(self.feed), **options)

    def load(self, address: str, settings: Settings, **options: Any) -> Load:
        given = {"channels": settings.channels, "warm_s": settings.warm_s, "seconds": settings.load_s}
        return Load(address=address, requests=str(self.requests), answers=str(self.answers), **(given | options))


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a person sees while it runs."""

    console: Console
    began: float = field(default_factory=time.monotonic)

    def say(self, part: str, what: str, result: str) -> None:
        """A line for a measurement."""
        elapsed = time.monotonic() - self.began
        self.console.print(f"{elapsed:6.0f} s  {part:<11}{what:<44}{result}", highlight=False, markup=False)


@dataclass(slots=True, kw_only=True)
class Run(Progress):
    """One run of some parts. `folder` is empty at first and goes at the end."""

    settings: Settings
    folder: Path
    saturations: dict[str, float] = field(default_factory=dict)
    """By workload: rows a second through the service, where that was measured."""

    def repository(self, name: str) -> Path:
        """A folder for a model repository; whoever finds it missing writes the model."""
        return self.folder / "models" / name

    def prepare(self, workload: Workload, feed: Feed) -> Prepared:
        """Writes the model, unless it is there, and the workload's inputs as arrays and as requests."""
        models = self.repository(workload.model)
        if not models.exists():
            repository.write(models, workload.model)
        folder = self.folder / workload.name
        folder.mkdir(exist_ok=True)
        prepared = Prepared(
            models=models,
            graph=models / workload.model / "1" / repository.GRAPH,
            feed=folder / "feed.npz",
            requests=folder / "requests",
            answers=folder / "answers",
            outputs=folder / "outputs.npy",
        )
        np.savez(prepared.feed, allow_pickle=False, **feed)
        blobs.write(prepared.requests, make_requests(workload, feed))
        return prepared


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest; of one value, that value."""
    return float(np.percentile(values, percent))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
