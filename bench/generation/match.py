"""What all parts of one run share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.generation.contestants import Places
from bench.generation.models import Weights
from bench.generation.settings import Settings
from bench.generation.stage import Contestant, Stage
from bench.generation.workloads import Requests
from bench.run import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Who takes part, and in what."""

    settings: Settings
    weights: Weights
    places: Places
    progress: Progress
    contestants: Sequence[Contestant]
    precisions: Sequence[str]
    """The service's, as model.yaml calls them."""
    changes: dict[str, Any]
    """To model.yaml."""

    @property
    def servers(self) -> list[Contestant]:
        return [contestant for contestant in self.contestants if contestant.is_server]

    def stage(self, workload: str, contestants: Sequence[Contestant], warm: Requests) -> Stage:
        return Stage(self.progress, workload, contestants, warm)
