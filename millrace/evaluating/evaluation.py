"""An evaluation from its data to its result:

find the model ─▶ read the data ─▶ ask what is not in the journal yet ─▶ score; the same of the other model ─▶ compare
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from platform import python_version

from millrace.client import AsyncClient
from millrace.evaluating.asking import Asker, Journal, Options, Outcome, Progress, Target, ask_all, find_target
from millrace.evaluating.asking.journal import fingerprint
from millrace.evaluating.asking.running import Watch
from millrace.evaluating.data import Dataset, read_dataset
from millrace.evaluating.kinds import Kind, Strict
from millrace.evaluating.result import Data, Result
from millrace.evaluating.scores.scoring import Resampling, compare, system

PACKAGES = ("millrace", "scikit-learn", "scipy", "jiwer", "numpy")
Watching = Callable[[Target, Dataset, Journal], AbstractContextManager[Watch]]
"""Shows how one model's calls go; entered when they begin."""


class Plan(Strict):
    """What is evaluated, and how."""

    model: str
    version: str = ""
    against: str = ""
    """VERSION, or MODEL/VERSION; empty: nothing is compared."""
    data: Path
    kind: Kind | None = None
    limit: int | None = None
    options: Options = Options()
    concurrency: int = 64
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that has to be right before the first call."""

    plan: Plan
    targets: Sequence[Target]
    """One, or two: the one to compare it with comes second."""
    dataset: Dataset

    @property
    def name(self) -> str:
        """For a folder: the same for the same evaluation."""
        (target, *_), data = self.targets, Path(self.dataset.name).stem
        return f"{target.model}-{target.version}-{data}-{fingerprint(target, self.dataset, self.plan.options)[:8]}"

    def journal(self, folder: Path, target: Target, *, fresh: bool) -> Journal:
        mark = fingerprint(target, self.dataset, self.plan.options)
        return Journal(folder / f"journal-{target.model}-{target.version}-{mark[:12]}.jsonl", mark, fresh=fresh)


async def prepare(client: AsyncClient, plan: Plan) -> Prepared:
    """Raises ValueError or OSError for data that cannot be evaluated, MillraceError where the models are not served."""
    target = await find_target(client, plan.model, plan.version)
    targets = [target]
    if plan.against:
        model, _, version = plan.against.rpartition("/")
        targets.append(await find_target(client, model or plan.model, version))
        if (targets[0].model, targets[0].version) == (targets[1].model, targets[1].version):
            raise ValueError(f"--against {plan.against} is {target} itself")
    dataset = read_dataset(plan.data, kind=plan.kind, model_task=target.task, limit=plan.limit)
    return Prepared(plan=plan, targets=targets, dataset=dataset)


async def evaluate(
    client: AsyncClient, prepared: Prepared, folder: Path, watching: Watching, *, fresh: bool = False
) -> Result:
    """Goes on with the journals that are in the folder; `fresh` empties them.

    Raises what `ask_all`, `Journal` and the scores raise: what was answered before is in the journals.
    """
    plan, dataset, started_at, began = prepared.plan, prepared.dataset, datetime.now(UTC), time.monotonic()
    asked: list[tuple[Target, Mapping[str, Outcome]]] = []
    for target in prepared.targets:
        with prepared.journal(folder, target, fresh=fresh) as journal, watching(target, dataset, journal) as watch:
            asker = Asker(client, target, dataset.kind, plan.options)
            await ask_all(asker, dataset.examples, journal, watch, concurrency=plan.concurrency)
            asked.append((target, journal.outcomes))
    resampling = Resampling(resamples=plan.resamples, seed=plan.seed)
    systems = [system(target, dataset, outcomes, resampling) for target, outcomes in asked]
    after, *before = asked
    return Result(
        schema="millrace.evaluation/1",
        kind=dataset.kind,
        data=Data(name=dataset.name, sha256=dataset.sha256, examples=len(dataset.examples)),
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=time.monotonic() - began,
        settings=_settings(plan),
        versions=_versions(),
        system=systems[0],
        against=systems[1] if before else None,
        comparison=compare(dataset.kind, dataset.examples, before[0], after, resampling) if before else None,
    )


@contextmanager
def silently(target: Target, dataset: Dataset, journal: Journal) -> Iterator[Watch]:
    """A `Watching` that shows nothing."""

    def watch(step: Progress) -> None:
        pass

    yield watch


def _settings(plan: Plan) -> dict[str, str | int | float | bool | Sequence[str]]:
    """Those that are set; not where the data lies."""
    given = plan.model_dump(mode="json", exclude={"data", "options", "kind"}, exclude_none=True)
    return given | plan.options.model_dump(mode="json")


def _versions() -> dict[str, str]:
    return {"python": python_version()} | {package: metadata.version(package) for package in PACKAGES}
