"""Experiment 13, promise P10: everything is restarted, one process after the other, under a steady load.

    streams        AsyncClient's, whose resume loop is the one that every client example ships
    unary calls    plain channels with the published service config: one that knows every frontend, and one that knows a
                   single address in front of them, whose connection stays where it is until the frontend closes it
    bare calls     the same without the config; what they lose is what the config is for

Each process gets SIGTERM, ends with 0, and is started anew at its old address before the next one's turn. Redis (with
its append-only file) comes last and is away for a second. Nothing of it may be seen: no call fails, no stream ends
early, loses or repeats a result.
"""

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace import AsyncClient
from millrace.errors import MillraceError
from tests.chaos.balancer import Balancer
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.chaos.unary import DIGITS, Callers, published, told
from tests.chaos.verdict import endings, judge
from tests.processes import Service, Valkey
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, fleet, stream

STREAMS, TOKENS, STEP_MS = 16, 150, 20
RATE, BARE_RATE = 40.0, 20.0
"""Operations a second of each group of callers."""
DRAIN_S = 1.0
"""Shorter than a stream, so that streams do change their frontend and their worker."""
REDIS_AWAY_S = 1.0
SETTLE_S = 0.3


@dataclass(kw_only=True)
class Round:
    """What is under way while processes restart."""

    running: Fleet
    over: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[Transcript] = field(default_factory=list)
    restarts: int = 0
    failures: list[str] = field(default_factory=list)

    async def follow(self, number: int, client: AsyncClient) -> None:
        """One generation after the other until the restarts are over."""
        while not self.over.is_set():
            transcript = Transcript(job_id=f"stream-{number}-{len(self.seen)}", prompt="go on")
            self.seen.append(transcript)
            try:
                await stream(client, transcript, "stub", max_tokens=TOKENS)
            except MillraceError as error:
                transcript.code, transcript.reason = error.code, error.reason

    async def restart_all(self, rounds: int) -> None:
        try:
            for _ in range(rounds):
                for service in (*self.running.frontends, *self.running.workers):
                    await self._restart(service)
                await self._restart(self.running.valkey, away_s=REDIS_AWAY_S)
        finally:
            self.over.set()

    async def _restart(self, process: Service | Valkey, away_s: float = 0.0) -> None:
        await asyncio.sleep(SETTLE_S)
        code = await asyncio.to_thread(process.stop)
        if code != 0:
            self.failures.append(f"a process ended with {code}:\n{process.log[-2000:]}")
        await asyncio.sleep(away_s)
        await asyncio.to_thread(process.start)
        self.restarts += 1


async def run(scale: Scale) -> Outcome:
    frontends, workers, rounds = scale.of(2, 3), scale.of(2, 3), scale.of(1, 4)
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), step_ms=STEP_MS)
        shutil.copytree(DIGITS, Path(folder) / "digits")
        async with (
            Valkey(durable=True) as valkey,
            fleet(
                Path(folder), frontends=frontends, workers=workers, valkey=valkey, MILLRACE_DRAIN_S=str(DRAIN_S)
            ) as running,
            Balancer(running.addresses) as balancer,
        ):
            every = f"ipv4:{','.join(running.addresses)}"
            callers = [Callers("all", every, published()), Callers("one", balancer.address, published())]
            bare = Callers("bare", every, (("grpc.enable_retries", 0),))
            this = Round(running=running)
            await _load(this, callers, bare, rounds)
            counts, failures = await judge(running, this.seen)
    return _outcome(this, callers, bare, counts, failures)


async def _load(this: Round, callers: list[Callers], bare: Callers, rounds: int) -> None:
    async with AsyncClient(*this.running.addresses) as client, asyncio.TaskGroup() as tasks:
        for number in range(STREAMS):
            tasks.create_task(this.follow(number, client))
        for group in callers:
            tasks.create_task(group.run(RATE, this.over))
        tasks.create_task(bare.run(BARE_RATE, this.over))
        tasks.create_task(this.restart_all(rounds))


def _outcome(
    this: Round, callers: list[Callers], bare: Callers, counts: dict[str, int], failures: list[str]
) -> Outcome:
    failures = [
        *this.failures,
        *failures,
        *endings(this.seen, TOKENS),
        *(line for group in callers for line in told(group)),
    ]
    if not bare.answers.failures:
        failures.append("the bare calls saw no restart either: nothing was tried")
    latencies = [latency for group in callers for latency in group.answers.latencies]
    stalls = [transcript.stall_s for transcript in this.seen]
    running = this.running
    return Outcome(
        done=f"SIGTERM and start of {len(running.frontends)} frontends, {len(running.workers)} workers and Redis, "
        f"{this.restarts} restarts; {STREAMS} streams and {2 * RATE:g} operations a second beside them",
        counts=counts
        | {"restarts": this.restarts, "unary calls": len(latencies)}
        | {"failed": sum(len(group.answers.failures) for group in callers), "bare failed": len(bare.answers.failures)},
        figures={
            "unary p50": f"{1000 * percentile(latencies, 0.5):.0f} ms",
            "p99": f"{percentile(latencies, 0.99):.2f} s",
            "slowest": f"{max(latencies):.2f} s",
            "longest stall": f"{max(stalls):.2f} s",
        },
        failures=tuple(failures),
    )
