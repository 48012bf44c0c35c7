"""The spine: a version becomes a better one beside it, or a table that says why not."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from millrace.exporting import accepting, manifest, room, staging
from millrace.exporting.stages import Stages
from millrace.optimizing import candidate, order, publishing, rounds, version
from millrace.optimizing.candidate import Candidate, Choice
from millrace.optimizing.measuring import process
from millrace.optimizing.order import Order

GROWTH = 2
"""What weights of 16 bits may become, against the original's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    candidates: list[Candidate]
    """The original first."""
    choice: Choice
    published: Path | None
    """None: nothing was good enough."""


def optimise(wanted: Order, stages: Stages, run: rounds.Run = process.run) -> Outcome:
    """Raises ValueError with a sentence, and leaves nothing then."""
    order.check(wanted)
    original, target = version.read(wanted.folder, wanted.device), wanted.target
    publishing.check(original)
    repository = wanted.model.parent
    staging.sweep(repository)
    _check_disk(repository, publishing.size(original) * GROWTH * (len(wanted.methods) + 1))
    with staging.staging(repository, wanted.model.name, target.name) as folder:
        found = rounds.examine(wanted, original, folder.parents[1] / ".candidates", stages, run)
        choice = candidate.choose(found[0], found[1:], wanted.prefer, wanted.max_loss)
        if choice.best is not None:
            publishing.fill(folder, wanted, original, found, choice)
            _publish(folder, target, stages, "cpu" if original.device == "cpu" else None)
    return Outcome(candidates=found, choice=choice, published=target if choice.best else None)


def _publish(folder: Path, target: Path, stages: Stages, device: str | None) -> None:
    with stages.stage("sums of the files", manifest.size(folder)):
        manifest.write(folder, stages.advance)
    with stages.stage("the worker's own check"):
        accepting.accepted(folder.parents[1], device)
    staging.publish(folder, target)


def _check_disk(repository: Path, needed: int) -> None:
    """Raises ValueError where the candidates may not have room beside each other."""
    free = max(shutil.disk_usage(repository).free - room.SPARE_BYTES, 0)
    if needed > free:
        raise ValueError(
            f"the candidates take up to {room.told(needed)} of disk, and {repository} has room for {room.told(free)}: "
            "make room, or name fewer --methods"
        )
