"""Experiment 5: fail-over to a replica that was 300 ms behind.

All processes reach Redis by one address, as by a Kubernetes Service. The replica's link is held up for 300 ms, then
the primary is killed, the replica is promoted, a new replica joins it, and the address points there. What the primary
had acknowledged in those 300 ms is gone. With `durability=replicated` no caller may notice more than a pause. Without,
every caller who had seen something that is gone is told so by an error; nobody hangs, and nobody gets other text.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace import AsyncClient
from millrace.errors import Code
from millrace.queue.connection import connect
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.chaos.link import Link
from tests.chaos.load import callers, streams, submitted, through, transcripts
from tests.chaos.verdict import added, endings, judge, judge_by_themselves
from tests.eventually import eventually
from tests.processes import Valkey
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, fleet

STREAMS, SUBMITTERS, TOKENS, STEP_MS = 100, 10, 400, 20
SUBMITTED_TOKENS = 20
BEHIND_S = 0.3
WITHIN_S = 45.0
LOSSES = (Code.DATA_LOSS, Code.NOT_FOUND)
"""How a caller learns that what it has seen, or what it has been promised, is gone."""

DURABILITIES = ("replicated", "fast")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One fail-over: the streams, counts, what is not as promised, and how long it took until all calls were over."""

    watched: Sequence[Transcript]
    counts: dict[str, int]
    broken: Sequence[str]
    over_s: float


@dataclass(kw_only=True)
class Servers:
    """A primary, its replica, and the address of whichever is the primary."""

    primary: Valkey
    replica: Valkey
    replication: Link
    address: Link


async def run(scale: Scale) -> Outcome:
    tried = {durability: [await _fail_over(durability) for _ in range(scale.of(1, 5))] for durability in DURABILITIES}
    counts = {
        f"{name} ({durability})": count
        for durability, rounds in tried.items()
        for name, count in added(*(one.counts for one in rounds)).items()
        if count or name == "lost"
    }
    stalls = [transcript.stall_s for one in tried["replicated"] for transcript in one.watched]
    told_s = max(one.over_s for one in tried["fast"])
    return Outcome(
        done=f"{scale.of(1, 5)} fail-overs each way under {STREAMS} streams and {SUBMITTERS} submitters",
        counts=counts,
        figures={"stall p99, replicated": f"{percentile(stalls, 0.99):.2f} s", "all told, fast": f"{told_s:.2f} s"},
        failures=tuple(f"{name}: {text}" for name, rounds in tried.items() for one in rounds for text in one.broken),
    )


async def _fail_over(durability: str) -> Tried:
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=2 * STREAMS, step_ms=STEP_MS)
        async with _servers() as servers:
            url = f"redis://{servers.address.address}/0"
            environment = {"MILLRACE_REDIS_URL": url, "MILLRACE_DURABILITY": durability}
            async with fleet(Path(folder), frontends=2, workers=2, valkey=servers.primary, **environment) as running:
                return await _try(running, servers, durability)


async def _try(running: Fleet, servers: Servers, durability: str) -> Tried:
    watched = transcripts(durability, STREAMS)
    async with (
        AsyncClient(*running.addresses) as client,
        streams(through(client, TOKENS), watched, within_s=WITHIN_S),
        callers(submitted(client, SUBMITTED_TOKENS), f"{durability}-left", SUBMITTERS, within_s=WITHIN_S) as left,
    ):
        await eventually(lambda: min(len(one.messages) for one in watched) > TOKENS / 8, within_s=WITHIN_S)
        running.valkey = await _promote(servers)
        began = time.monotonic()
        await asyncio.sleep(BEHIND_S)
        left.stopping = True
    over_s = time.monotonic() - began
    seen = [*watched, *left.seen]
    good = [one for one in seen if one.code is Code.OK]
    if durability == "replicated":
        counts, failures = await judge(running, good)
        failures += endings(watched, TOKENS) + endings(left.seen, SUBMITTED_TOKENS)
    else:
        counts, failures = await _judge_what_was_seen(running, good)
        failures += _unexplained(seen)
    lost = Counter(one.code for one in seen if one.code is not None and one.code is not Code.OK)
    counts["told of a loss"] = lost.total()
    return Tried(watched=watched, counts=counts, broken=failures, over_s=over_s)


async def _judge_what_was_seen(running: Fleet, good: Sequence[Transcript]) -> tuple[dict[str, int], list[str]]:
    """A caller may have had all of a job whose log is gone: what never changed its worker stands for itself."""
    alone, wrong = judge_by_themselves([one for one in good if one.attempts == 1])
    others, different = await judge(running, [one for one in good if one.attempts > 1])
    return added(alone, others), wrong + different


def _unexplained(seen: Sequence[Transcript]) -> list[str]:
    """Callers who got neither what was promised, nor the error that says that it is gone."""
    hanging = [one.job_id for one in seen if one.code is None]
    odd = [f"{one.job_id} ({one.code.name}, {one.reason})" for one in seen if one.code and one.code not in LOSSES]
    sentences = [f"{len(hanging)} callers hang: {', '.join(hanging[:3])}"] if hanging else []
    return sentences + ([f"{len(odd)} callers got another error: {', '.join(odd[:3])}"] if odd else [])


@asynccontextmanager
async def _servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(Valkey("--repl-diskless-sync-delay", "0"))
        replication = await stack.enter_async_context(Link(f"127.0.0.1:{primary.port}"))
        replica = await stack.enter_async_context(_replica_of(replication.address))
        address = await stack.enter_async_context(Link(f"127.0.0.1:{primary.port}"))
        await _synchronised(replica)
        servers = Servers(primary=primary, replica=replica, replication=replication, address=address)
        stack.push_async_callback(_stop_late_replica, servers)
        yield servers


def _replica_of(address: str) -> Valkey:
    host, _, port = address.rpartition(":")
    return Valkey("--replicaof", f"{host} {port}", "--repl-diskless-sync-delay", "0")


async def _synchronised(replica: Valkey) -> None:
    async with connect(replica.url) as redis:

        async def linked() -> bool:
            return bool((await redis.info("replication"))["master_link_status"] == "up")

        await eventually(linked, within_s=10.0)


async def _promote(servers: Servers) -> Valkey:
    """The replica falls behind, and becomes the primary that all find at the address."""
    servers.replication.hold()
    await asyncio.sleep(BEHIND_S)
    await asyncio.to_thread(servers.primary.kill)
    servers.replication.break_connections()
    promoted = servers.replica
    async with connect(promoted.url) as redis:
        await redis.replicaof("NO", "ONE")
    servers.replica = _replica_of(f"127.0.0.1:{promoted.port}")
    await asyncio.to_thread(servers.replica.start)
    servers.address.point_to(f"127.0.0.1:{promoted.port}")
    return promoted


async def _stop_late_replica(servers: Servers) -> None:
    await asyncio.to_thread(servers.replica.kill)
