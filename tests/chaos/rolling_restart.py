"""Experiment 13, promise P10: everything is restarted, one process after the other, under a steady load.

    streams        AsyncClient's, and those of generated clients in Python and JavaScript, by the loop that every client
                   example ships
    unary calls    plain channels with the published service config, in Python and JavaScript: one that knows every
                   frontend, and one that knows a single address in front of them, whose connection stays where it is
                   until the frontend closes it
    bare calls     the same without the config; what they lose is what the config is for

Each process gets SIGTERM, ends with 0, and is started anew at its old address before the next one's turn. Redis comes
last: its replica, which is away for a second, and, after a fail-over to that, the other. With `durability=replicated`
nothing of it may be seen: no call fails, no stream ends early, loses or repeats a result.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace import AsyncClient
from tests.chaos.balancer import Balancer
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.chaos.generated import NodeLoad, node_load, python_stubs
from tests.chaos.load import Load, callers, through
from tests.chaos.pair import Pair, pair
from tests.chaos.unary import DIGITS, Answers, Callers, published, told
from tests.chaos.verdict import endings, judge
from tests.processes import Service
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, fleet

STREAMS, GENERATED_STREAMS, TOKENS, STEP_MS = 6, 3, 75, 40
"""AsyncClient's, and those of each language."""
RATE, NODE_RATE, BARE_RATE = 15.0, 7.5, 7.5
"""Operations a second of each channel."""
DRAIN_S = 1.0
"""Shorter than a stream, so that streams do change their frontend and their worker."""
REDIS_AWAY_S = 1.0
SETTLE_S = 0.3
LAST_S = 60.0
"""What Node's last calls may take."""


@dataclass(kw_only=True)
class Seen:
    """What all callers have seen."""

    loads: list[Load]
    node: NodeLoad
    groups: list[Callers]
    bare: Callers

    @property
    def streams(self) -> list[Transcript]:
        return [*(one for load in self.loads for one in load.seen), *self.node.seen.values()]

    @property
    def answers(self) -> list[Answers]:
        return [*(group.answers for group in self.groups), self.node.answers]

    @property
    def latencies(self) -> list[float]:
        return [latency for answers in self.answers for latency in answers.latencies]


async def run(scale: Scale) -> Outcome:
    frontends, workers, rounds = scale.of(2, 3), scale.of(2, 3), scale.of(1, 4)
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), step_ms=STEP_MS)
        shutil.copytree(DIGITS, Path(folder) / "digits")
        async with pair() as redis:
            environment = {
                "MILLRACE_REDIS_URL": redis.url,
                "MILLRACE_DURABILITY": "replicated",
                "MILLRACE_DRAIN_S": str(DRAIN_S),
            }
            async with fleet(
                Path(folder), frontends=frontends, workers=workers, valkey=redis.primary, **environment
            ) as running:
                async with _load(running, scale.of(120, 600)) as seen:
                    restarts, failures = await _restart_all(running, redis, rounds)
                running.valkey = redis.primary
                counts, differences = await judge(running, seen.streams)
    return _outcome(seen, restarts, counts, [*failures, *differences])


@asynccontextmanager
async def _load(running: Fleet, within_s: float) -> AsyncIterator[Seen]:
    """Callers of each kind, until the block ends; waits for their last calls. Streams may take `within_s` in all."""
    every, over = f"ipv4:{','.join(running.addresses)}", asyncio.Event()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        balancer = await enter(Balancer(running.addresses))
        client = await enter(AsyncClient(*running.addresses))
        follow = await enter(python_stubs(running.addresses, TOKENS))
        one = f"ipv4:{balancer.address}"
        groups = [Callers("all", every, published()), Callers("one", one, published())]
        bare = Callers("bare", every, (("grpc.enable_retries", 0),))
        tasks = await enter(asyncio.TaskGroup())
        loads = [
            await enter(callers(through(client, TOKENS), "ours", STREAMS, within_s=within_s)),
            await enter(callers(follow, "python", GENERATED_STREAMS, within_s=within_s)),
        ]
        load = {"streams": GENERATED_STREAMS, "tokens": TOKENS, "rate": NODE_RATE}
        node = await enter(node_load([every, one], running.addresses, last_s=LAST_S, **load))
        for group in groups:
            tasks.create_task(group.run(RATE, over))
        tasks.create_task(bare.run(BARE_RATE, over))
        stack.callback(_end, loads, over)
        yield Seen(loads=loads, node=node, groups=groups, bare=bare)


def _end(loads: list[Load], over: asyncio.Event) -> None:
    """No call is begun any more."""
    for load in loads:
        load.stopping = True
    over.set()


async def _restart_all(running: Fleet, redis: Pair, rounds: int) -> tuple[int, list[str]]:
    """How many processes were restarted, and what each said that did not end well."""
    failures = []
    services = (*running.frontends, *running.workers)
    for _ in range(rounds):
        for service in services:
            failures += await _restart(service)
        await asyncio.sleep(SETTLE_S)
        await redis.restart(REDIS_AWAY_S)
        await asyncio.sleep(SETTLE_S)
    return rounds * (len(services) + 2), failures


async def _restart(service: Service) -> list[str]:
    await asyncio.sleep(SETTLE_S)
    code = await asyncio.to_thread(service.stop)
    failures = [f"a process ended with {code}:\n{service.log[-2000:]}"] if code != 0 else []
    await asyncio.to_thread(service.start)
    return failures


def _outcome(seen: Seen, restarts: int, counts: dict[str, int], failures: list[str]) -> Outcome:
    for name, answers in zip((*(group.name for group in seen.groups), "node"), seen.answers, strict=True):
        failures += told(name, answers)
    failures += endings(seen.streams, TOKENS)
    stalls = [transcript.stall_s for transcript in seen.streams]
    without = f"; without Node: {seen.node.missing}" if seen.node.missing else ""
    return Outcome(
        done=f"{restarts} restarts of frontends, workers and both servers of Redis, and a fail-over between these; "
        f"{STREAMS} streams of AsyncClient, {GENERATED_STREAMS} of each generated client, and unary calls{without}",
        counts=counts
        | {
            "of Node": len(seen.node.seen),
            "on several workers": sum(one.attempts > 1 for one in seen.streams),
            "restarts": restarts,
        }
        | {"unary calls": len(seen.latencies), "of Node's": len(seen.node.answers.latencies)}
        | {"failed": sum(len(answers.failures) for answers in seen.answers)}
        | {"bare failed": len(seen.bare.answers.failures)},
        figures={
            "unary p50": f"{1000 * percentile(seen.latencies, 0.5):.0f} ms",
            "p99": f"{percentile(seen.latencies, 0.99):.2f} s",
            "slowest": f"{max(seen.latencies):.2f} s",
            "longest stall": f"{max(stalls):.2f} s",
        },
        failures=tuple(failures),
    )
