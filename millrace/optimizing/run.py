"""The spine: a version becomes a better one beside it, or a table that says why not."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from millrace.evaluating.data.rows import FORMATS, rows
from millrace.exporting import accepting, manifest, room, staging
from millrace.exporting.stages import Stages
from millrace.optimizing import candidate, order, publishing, rounds, version
from millrace.optimizing.candidate import Candidate, Choice
from millrace.optimizing.measuring import process
from millrace.optimizing.order import Order
from millrace.optimizing.version import Version

GROWTH = 2
"""What weights of 16 bits may become, against the original's files."""
OF_MEDIA = ("image-classification", "audio-classification", "speech-recognition")


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
        scratch = folder.parents[1] / ".candidates"
        found = rounds.examine(wanted, original, scratch, stages, run, _judge(wanted, original, scratch))
        choice = candidate.choose(found[0], found[1:], wanted.prefer, wanted.max_loss)
        if choice.best is not None:
            publishing.fill(folder, wanted, original, found, choice)
            _publish(folder, target, stages, "cpu" if original.device == "cpu" else None)
    return Outcome(candidates=found, choice=choice, published=target if choice.best else None)


def _judge(wanted: Order, original: Version, scratch: Path) -> rounds.Judge | None:
    """Raises ValueError for data that the service cannot be asked by, or where what asks it is not installed."""
    if wanted.data is None or not _is_served(original, wanted.data):
        if wanted.data is not None and wanted.data.is_dir():
            raise ValueError(f"--data {wanted.data}: a folder holds images or sounds, which this model does not take")
        return None
    try:
        from millrace.optimizing import served
    except ModuleNotFoundError as error:
        told = f"{wanted.data.name} is judged by `millrace evaluate`, which needs {error.name}"
        raise ValueError(f"--data: {told}: pip install 'millrace[evaluate]'") from None
    served.check(wanted, original)
    return partial(served.judge, wanted, original, scratch)


def _is_served(version: Version, data: Path) -> bool:
    """Whether the data are requests of the model's task, rather than what its graph takes."""
    if version.described.get("task") == "text-embedding":
        return data.suffix.lower() in FORMATS and any("query" in row for _, row in rows(data))
    return version.described.get("task") in OF_MEDIA and data.suffix.lower() != ".npz"


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
