"""What a stretch of time has cost: processor time by process, Redis' commands and bytes, memory."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
from redis.asyncio import Redis

from tests.survival.fleet import Fleet

KINDS = ("frontend", "worker", "redis", "client")
SCRIPTS = ("evalsha", "eval")
Calls = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From one reading to the next."""

    seconds: float
    cores: Mapping[str, tuple[float, ...]]
    """By kind, what each process has used of a core."""
    calls: Calls
    """Of each command, those within scripts included."""
    script_us: float
    """That Redis spent in scripts."""
    input_bytes: float
    """That Redis received."""
    output_bytes: float

    @property
    def cpu_s(self) -> dict[str, float]:
        """By kind, all its processes together."""
        return {kind: sum(used) * self.seconds for kind, used in self.cores.items()}

    @property
    def all_cores(self) -> float:
        return sum(map(sum, self.cores.values()))

    @property
    def scripts(self) -> float:
        return sum(self.calls.get(name, 0.0) for name in SCRIPTS)

    @property
    def commands(self) -> float:
        return sum(self.calls.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    at: float
    cpu_s: Mapping[str, tuple[float, ...]]
    calls: Calls
    script_us: float
    input_bytes: float
    output_bytes: float


class Meter:
    """Reads a fleet's processes and its Redis; this process is the client."""

    def __init__(self, fleet: Fleet, redis: "Redis") -> None:
        self._fleet, self._redis = fleet, redis
        self._last: _Reading | None = None

    async def start(self) -> None:
        self._last = await self._read()

    async def span(self) -> Span:
        """Since the last `start` or `span`. The processes must be the same."""
        before, after = self._last, await self._read()
        if before is None:
            raise RuntimeError("the meter was not started")
        self._last, seconds = after, after.at - before.at
        return Span(
            seconds=seconds,
            cores={
                kind: tuple((late - early) / seconds for early, late in zip(before.cpu_s[kind], used, strict=True))
                for kind, used in after.cpu_s.items()
            },
            calls={name: calls - before.calls.get(name, 0.0) for name, calls in after.calls.items()},
            script_us=after.script_us - before.script_us,
            input_bytes=after.input_bytes - before.input_bytes,
            output_bytes=after.output_bytes - before.output_bytes,
        )

    async def memory(self) -> dict[str, float]:
        """Bytes: `redis`, what it uses for all that it holds; `frontend`, resident, all frontends; `client`."""
        frontends = sum(psutil.Process(each.pid).memory_info().rss for each in self._fleet.frontends)
        used = float((await self._redis.info("memory"))["used_memory"])
        return {"redis": used, "frontend": float(frontends), "client": float(psutil.Process().memory_info().rss)}

    async def _read(self) -> _Reading:
        stats: dict[str, Any] = await self._redis.info("stats")
        commands: dict[str, Any] = await self._redis.info("commandstats")
        named = {name.removeprefix("cmdstat_"): each for name, each in commands.items()}
        fleet = self._fleet
        running = [each for each in fleet.workers if each.returncode is None]
        return _Reading(
            at=time.perf_counter(),
            cpu_s={
                "frontend": tuple(_cpu_s(each.pid) for each in fleet.frontends),
                "worker": tuple(_cpu_s(each.pid) for each in running),
                "redis": (_cpu_s(fleet.valkey.pid),),
                "client": (_cpu_s(None),),
            },
            calls={name: float(each["calls"]) for name, each in named.items()},
            script_us=sum(float(named[name]["usec"]) for name in SCRIPTS if name in named),
            input_bytes=float(stats["total_net_input_bytes"]),
            output_bytes=float(stats["total_net_output_bytes"]),
        )


def _cpu_s(pid: int | None) -> float:
    return float(sum(psutil.Process(pid).cpu_times()[:2]))
