"""How long each script ran in Redis, one by one, from Redis' own log of slow commands."""

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from redis.asyncio import Redis

from millrace.queue import scripts

SLOWER_THAN_US = 10
"""Commands within scripts are logged too; nearly all of them are faster."""
MOST = 50_000
PRELUDES = ("prelude", "pace", "admission")
CALL_ARGUMENTS = 4
"""EVALSHA, the script, the number of keys, the key."""
PER_JOB = {"emit": (2, 12), "renew": (1, 2), "release": (0, 3), "watch": (2, 1), "unwatch": (1, 1), "forget": (0, 1)}
"""Of scripts that do several jobs: how many arguments come before the jobs, and for each."""
ELLIPSIS = b"... ("
"""How the log's last argument begins, where there were more than it keeps."""


@dataclass(frozen=True, slots=True)
class Run:
    """One call of a script."""

    script: str
    us: float
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All calls of one script."""

    calls: int
    median_us: float
    p99_us: float
    most_us: float
    call_us: float
    """Of a straight line through all calls by least squares: what a call takes without a job."""
    job_us: float
    """And for each job; 0 where all calls had as many."""
    most_jobs: int


async def sample(redis: "Redis", seconds: float) -> list[Run]:
    """Logs every script's call for a while; costs Redis some of its time meanwhile."""
    await begin(redis)
    await asyncio.sleep(seconds)
    return await end(redis)


async def begin(redis: "Redis") -> None:
    await redis.slowlog_reset()
    await redis.config_set("slowlog-max-len", MOST)
    await redis.config_set("slowlog-log-slower-than", SLOWER_THAN_US)


async def end(redis: "Redis") -> list[Run]:
    """What has run since `begin`."""
    await redis.config_set("slowlog-log-slower-than", -1)
    logged: list[Any] = await redis.execute_command("SLOWLOG", "GET", -1)  # type: ignore[no-untyped-call]
    await redis.slowlog_reset()
    names = {sha.encode(): name for name, sha in _known()}
    return [
        Run(names[words[1]], float(us), _jobs(names[words[1]], words))
        for _, _, us, words, *_ in logged
        if words[0].upper() == b"EVALSHA" and words[1] in names
    ]


def summarise(runs: Sequence[Run]) -> dict[str, Summary]:
    """By script."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.script].append(run)
    return {name: _summary(group) for name, group in sorted(groups.items())}


def _summary(group: Sequence[Run]) -> Summary:
    times, jobs = [run.us for run in group], [run.jobs for run in group]
    job_us, call_us = np.polyfit(jobs, times, 1) if len(set(jobs)) > 1 else (0.0, statistics.mean(times))
    return Summary(
        calls=len(group),
        median_us=statistics.median(times),
        p99_us=float(np.percentile(times, 99)),
        most_us=max(times),
        call_us=float(call_us),
        job_us=float(job_us),
        most_jobs=max(jobs),
    )


def _known() -> list[tuple[str, str]]:
    names = (path.stem for path in scripts.FOLDER.glob("*.lua"))
    return [(name, scripts.source(name)[1]) for name in names if name not in PRELUDES]


def _jobs(script: str, words: Sequence[bytes]) -> int:
    if script not in PER_JOB:
        return 1
    before, each = PER_JOB[script]
    total = len(words)
    if words[-1].startswith(ELLIPSIS):
        total = len(words) - 1 + int(words[-1].split()[1].lstrip(b"("))
    return (total - CALL_ARGUMENTS - before) // each
