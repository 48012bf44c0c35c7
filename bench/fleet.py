"""One frontend, one worker and an embedded Valkey, as `millrace up` starts them."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from millrace.cli.up import Fleet, Plan

READY_S = 120.0
MARKS = {"frontend": "services.frontend", "worker": "services.worker", "valkey": "valkey"}
"""What a process of each kind has in its command line, or in what it calls itself."""
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of one process, in MiB: what is resident, that with shared pages divided by their users, what is its own."""

    rss: float
    pss: float
    uss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A fleet that is ready."""

    address: str
    processes: dict[str, psutil.Process]

    def cpu_s(self) -> dict[str, float]:
        """What each process has used of a core so far."""
        return {name: sum(process.cpu_times()[:2]) for name, process in self.processes.items()}

    def cpu_since(self, before: dict[str, float]) -> dict[str, float]:
        return {name: after - before[name] for name, after in self.cpu_s().items()}

    def memory(self) -> dict[str, Memory]:
        sizes = {name: process.memory_full_info() for name, process in self.processes.items()}
        return {
            name: Memory(
                rss=size.rss / MEBIBYTE,
                pss=getattr(size, "pss", size.rss) / MEBIBYTE,
                uss=size.uss / MEBIBYTE,
            )
            for name, size in sizes.items()
        }


@asynccontextmanager
async def serving(models: Path, cores: int) -> AsyncIterator[Serving]:
    """Runs a fleet over a model repository. Raises TimeoutError where it does not become ready."""
    os.environ["MILLRACE_THREADS"] = str(cores)
    plan = Plan(
        redis_url=None,
        frontends=1,
        workers=1,
        models=str(models),
        device="cpu",
        grpc_port=0,
        http_port=0,
        log_level="warning",
    )
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        fleet = Fleet(plan, folder)
        for child in fleet.children:
            child.on_ready = lambda line: None
        tasks = [asyncio.create_task(child.run()) for child in fleet.children]
        try:
            async with asyncio.timeout(READY_S):
                for child in fleet.children:
                    await child.ready.wait()
            yield Serving(address=fleet.grpc[0], processes=_processes())
        finally:
            await fleet.stop()
            await asyncio.gather(*tasks, return_exceptions=True)


def _processes() -> dict[str, psutil.Process]:
    commands = [(process, " ".join(process.cmdline())) for process in psutil.Process().children()]
    return {name: next(p for p, command in commands if mark in command) for name, mark in MARKS.items()}
