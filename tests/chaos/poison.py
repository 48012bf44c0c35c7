"""Experiment 11: a job that kills whoever works on it, beside streams that do not.

All workers have streams, so the first death harms some; from then on the job runs alone, and its next two deaths harm
nobody. Dead workers are started again, as an orchestrator would. Others' latency is that of whole completions: a stream
that lost its worker waits for a lease once, however many tokens it has.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace import AsyncClient
from millrace.errors import Code, MillraceError
from millrace.queue import End, JobRef, Seal
from services.worker.stub import POISON_EXIT, POISON_PROMPT
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.chaos.load import MODEL, streams, through, transcripts
from tests.chaos.redis_view import STUB
from tests.chaos.verdict import added, endings, judge
from tests.processes import Service
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, fleet, queue_of

STREAMS, TOKENS, STEP_MS = 100, 300, 20
WORKERS, SLOTS = 4, 30
ATTEMPTS, FACTOR = 3, 2.0
WATCH_S, ANSWER_S = 0.05, 60.0


async def run(scale: Scale) -> Outcome:
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=SLOTS, step_ms=STEP_MS, poison=True)
        async with (
            fleet(Path(folder), frontends=1, workers=WORKERS) as running,
            AsyncClient(*running.addresses) as client,
            _orchestrator(running) as deaths,
        ):
            return await _compare(running, client, deaths, scale.of(1, 5))


async def _compare(running: Fleet, client: AsyncClient, deaths: list[int], jobs: int) -> Outcome:
    alone, counts, failures = await _good_streams(running, client, "alone")
    failures += [f"{len(deaths)} workers died without a poison job"] if deaths else []
    beside = list[Transcript]()
    for number in range(jobs):
        name = f"poison-{number}"
        seen, more, broken = await _good_streams(running, client, f"beside-{number}", poison=name)
        beside += seen
        counts = added(counts, more)
        failures += broken
        if not any(transcript.attempts > 1 for transcript in seen):
            failures.append(f"{name} harmed no stream: nothing was tried")
    before, after = (percentile([transcript.whole_s for transcript in seen], 0.99) for seen in (alone, beside))
    if after >= FACTOR * before:
        failures.append(f"others' p99 is {after:.1f} s beside a poison job, {before:.1f} s without")
    if deaths != [POISON_EXIT] * (jobs * ATTEMPTS):
        failures.append(f"workers died with {deaths} by {jobs} poison jobs of {ATTEMPTS} attempts")
    return Outcome(
        done=f"{jobs} poison jobs, each beside {STREAMS} streams of {TOKENS} tokens on {WORKERS} workers",
        counts=counts | {"poison jobs": jobs, "deaths": len(deaths)},
        figures={"others' p99": f"{after:.1f} s, without {before:.1f} s (< {FACTOR:g} times)"},
        failures=tuple(failures),
    )


async def _good_streams(
    running: Fleet, client: AsyncClient, name: str, poison: str = ""
) -> tuple[list[Transcript], dict[str, int], list[str]]:
    """The streams that are good, and what the checker says of them; beside a poison job, where one is named."""
    seen = transcripts(name, STREAMS)
    async with streams(through(client, TOKENS), seen, within_s=ANSWER_S) as load:
        await load.begun()
        failures = await _poison(running, client, poison) if poison else []
    counts, broken = await judge(running, seen)
    return seen, counts, [*failures, *broken, *endings(seen, TOKENS)]


async def _poison(running: Fleet, client: AsyncClient, job_id: str) -> list[str]:
    """Asks for it; a sentence for whatever is not as it has to be."""
    try:
        async with asyncio.timeout(ANSWER_S):
            await client.generate_text(MODEL, POISON_PROMPT, job_id=job_id, max_tokens=TOKENS)
        found: tuple[Code, str] = Code.OK, ""
    except MillraceError as error:
        found = error.code, error.reason
    except TimeoutError:
        return [f"{job_id} has not ended after {ANSWER_S} s"]
    async with queue_of(running) as queue:
        log = await queue.read(JobRef(STUB, "default", job_id))
    seals, ends = ([type(entry) for entry in log].count(kind) for kind in (Seal, End))
    said = [] if found == (Code.INTERNAL, "POISON_JOB") else [f"{job_id} ended with {found[0].name} {found[1]}"]
    return said + ([] if (seals, ends, len(log)) == (ATTEMPTS, 1, ATTEMPTS + 1) else [f"{job_id} has the log {log}"])


@asynccontextmanager
async def _orchestrator(running: Fleet) -> AsyncIterator[list[int]]:
    """Starts each worker anew that dies, while the body runs; gives their exit statuses."""
    deaths: list[int] = []
    keepers = [asyncio.create_task(_keep(worker, deaths)) for worker in running.workers]
    try:
        yield deaths
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


async def _keep(worker: Service, deaths: list[int]) -> None:
    """It may die again before it is ready."""
    while True:
        if (status := worker.returncode) is not None:
            deaths.append(status)
            worker.launch()
        await asyncio.sleep(WATCH_S)
