"""Each version of a model through a fleet, measured by the functions of `millrace evaluate`."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from millrace.client import AsyncClient
from millrace.evaluating.asking.answer import Answer
from millrace.evaluating.evaluation import Plan, evaluate, prepare, silently
from millrace.evaluating.report import write_report
from millrace.evaluating.result import Result, write_result
from millrace.evaluating.serving import serving


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
