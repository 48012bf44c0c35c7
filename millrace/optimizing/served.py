"""The metric of what no graph says by itself: transcripts, labels of images and sounds, vectors that find documents.

A fleet of its own serves the candidate alone, and `millrace evaluate` asks it.
"""

import asyncio
import shutil
from pathlib import Path

from millrace.client import AsyncClient
from millrace.errors import MillraceError
from millrace.evaluating.data import read_dataset
from millrace.evaluating.evaluation import Plan, evaluate, prepare, silently
from millrace.evaluating.kinds import PRIMARY
from millrace.evaluating.serving import serving
from millrace.exporting import accepting
from millrace.optimizing import publishing
from millrace.optimizing.candidate import Candidate
from millrace.optimizing.measuring.job import Content, Judgement, Refusal
from millrace.optimizing.order import Order
from millrace.optimizing.subjects.subject import Metric
from millrace.optimizing.version import Version


def check(order: Order, version: Version) -> None:
    """Raises ValueError, with the line, for data that cannot be evaluated, OSError for what cannot be read."""
    assert order.data is not None, "there is something to judge by"
    read_dataset(order.data, kind=None, model_task=version.described["task"])


def judge(order: Order, version: Version, scratch: Path, one: Candidate, found: Judgement) -> Content:
    """`found`, the outputs' difference, with the metric; or why there is none."""
    folder = scratch / "served" / version.name / version.folder.name
    folder.parent.mkdir(parents=True)
    try:
        if one.method is None:
            shutil.copytree(version.folder, folder, symlinks=True)
        else:
            folder.mkdir()
            publishing.place(folder, version, one)
        metric, score = asyncio.run(_score(folder, order))
    except (MillraceError, RuntimeError) as error:
        return Refusal(words=_refusal(folder.parents[1], order.device) or f"could not be served: {error}")
    finally:
        shutil.rmtree(scratch / "served")
    return found.model_copy(update={"metric": metric, "score": score})


def _refusal(repository: Path, device: str) -> str:
    """What a worker's own loader says against it; empty where it says nothing."""
    try:
        accepting.accepted(repository, device)
    except ValueError as error:
        return str(error)
    return ""


async def _score(folder: Path, order: Order) -> tuple[Metric, float]:
    """Raises ValueError for data that cannot be evaluated, RuntimeError where an example has no answer."""
    assert order.data is not None
    plan = Plan(model=folder.parent.name, data=order.data, resamples=0)
    async with (
        serving(folder.parents[1], device=order.device, threads=order.threads) as address,
        AsyncClient(address) as client,
    ):
        prepared = await prepare(client, plan)
        result = await evaluate(client, prepared, folder.parents[2] / "evaluation", silently)
    if result.system.failed:
        first = result.system.failures[0]
        raise RuntimeError(f"{result.system.failed} examples have no answer; the first: {first.message}")
    measure = result.system.measure(PRIMARY[result.kind])
    assert measure is not None, "there are answers"
    return Metric(measure.name), measure.value
