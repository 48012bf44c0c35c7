"""A fleet for as long as a story needs one, and each version of a model through it, measured by the functions of
`millrace evaluate`."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from millrace.client import AsyncClient
from millrace.evaluating.asking import Journal, Target
from millrace.evaluating.asking.answer import Answer
from millrace.evaluating.asking.running import Progress, Watch
from millrace.evaluating.data import Dataset
from millrace.evaluating.evaluation import Plan, evaluate, prepare
from millrace.evaluating.report import write_report
from millrace.evaluating.result import Result, write_result

ROOT = Path(__file__).parents[1]
START_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What a version answered, by the examples' ids, and how good that is."""

    answers: Mapping[str, Answer]
    result: Result


def evaluated(
    models: Path, name: str, versions: Sequence[str], data: Path, out: Path, *, resamples: int = 1_000
) -> dict[str, Evaluated]:
    """By version; the pages and records of each go to `out`. Every version but the first is compared with that.

    Raises RuntimeError where the service cannot be started, or leaves an example without an answer.
    """
    return asyncio.run(_evaluated(models, name, versions, data, out, resamples))


async def _evaluated(
    models: Path, name: str, versions: Sequence[str], data: Path, out: Path, resamples: int
) -> dict[str, Evaluated]:
    found: dict[str, Evaluated] = {}
    async with serving(models) as address, AsyncClient(address) as client:
        for version in versions:
            against = "" if version == versions[0] else versions[0]
            plan = Plan(model=name, version=version, against=against, data=data, resamples=resamples)
            folder, prepared = out / version, await prepare(client, plan)
            result = await evaluate(client, prepared, folder, silently, fresh=True)
            if result.system.failed:
                failure = result.system.failures[0]
                raise RuntimeError(f"{result.system.failed} examples have no answer; the first: {failure.message}")
            write_result(result, folder / "result.json")
            write_report(result, folder / "report.html")
            with prepared.journal(folder, prepared.targets[0], fresh=False) as journal:
                answers = {one: outcome for one, outcome in journal.outcomes.items() if isinstance(outcome, Answer)}
            found[version] = Evaluated(answers=answers, result=result)
    return found


@contextmanager
def silently(target: Target, dataset: Dataset, journal: Journal) -> Iterator[Watch]:
    """There are too few examples for a bar."""

    def watch(step: Progress) -> None:
        pass

    yield watch


@asynccontextmanager
async def serving(models: Path) -> AsyncIterator[str]:
    """The gRPC address of a fleet that serves what is in `models`, on free ports, until the block ends."""
    options = ("--grpc-port", "0", "--http-port", "0", "--models", str(models.resolve()))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "millrace.cli", "up", *options), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = (await process.stdout.readline()).decode()
        if not line.startswith("millrace ready "):
            raise RuntimeError("millrace up did not become ready; its messages above say why")
        yield line.split("grpc=")[1].split()[0].split(",")[0]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()
