"""The two minutes that the picture shows: a fleet under load, more of it than the fleet can do, and a worker killed.

1  a Valkey, two frontends, two workers with the repository's models, a Prometheus that scrapes them each second
2  chats at a rate the fleet can do, batch jobs and pictures beside them; a third of the way, many more chats come
3  two thirds of the way a worker is killed, and started again
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.dashboard.panels import ROWS, Panel, Query
from scripts.dashboard.picture.draw import Drawn, Shown, draw
from scripts.dashboard.picture.prometheus import Prometheus
from tests.eventually import eventually
from tests.processes import Service, Valkey, free_port

SETTINGS = {"MILLRACE_MAX_WAITING_JOBS": "40", "MILLRACE_LOG_LEVEL": "error", "MILLRACE_THREADS": "1"}
MARGIN_S, AWAY_S = 4, 3
"""What is shown in front of the load and behind it; how long the killed worker is gone."""
BEGIN_S, POLL_S = 90, 0.2
DIGIT = Path("docs/seven.png")
PROMPT = "".join(f"    def method_{index}(self, value):\n        return value + {index}\n\n" for index in range(12))
BEGUN = "sum(millrace_frontend_jobs_submitted_total) > 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Its frontends' gRPC addresses, and by each process's name where its metrics are."""

    grpc: list[str]
    metrics: dict[str, str]
    workers: dict[str, Service]


async def take_picture(path: Path, seconds: int) -> None:
    """Raises ValueError where a query has no answer: a panel would be empty."""
    async with fleet() as running, Prometheus(running.metrics) as prometheus:
        async with asyncio.TaskGroup() as tasks:
            for arguments in loads(seconds):
                tasks.create_task(load(running.grpc, arguments))
            begin = await begun(prometheus) - MARGIN_S
            await kill(running.workers["worker-2"], 2 * seconds / 3)
        await asyncio.sleep(MARGIN_S)
        end = time.time()
        rows = [(row.title, [await ask(prometheus, panel, begin, end) for panel in row.panels]) for row in ROWS]
    story = f"Overload from {MARGIN_S + seconds // 3} s, worker-2 killed at {MARGIN_S + 2 * seconds // 3} s."
    draw(path, rows, story, begin, end)


async def begun(prometheus: Prometheus) -> float:
    """Returns when the first job is there, and says when it was."""
    lines = await eventually(lambda: prometheus.range(BEGUN, time.time() - 5, time.time()), BEGIN_S, POLL_S)
    return lines[0].points[0][0]


@asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(Valkey())
        shared = SETTINGS | {"MILLRACE_REDIS_URL": valkey.url}
        metrics: dict[str, str] = {}
        grpc: list[str] = []
        services: dict[str, Service] = {}
        for name in ("worker-1", "worker-2", "frontend-1", "frontend-2"):
            metrics[name] = f"127.0.0.1:{free_port()}"
            environment = shared | {"MILLRACE_HTTP_ADDRESS": metrics[name]}
            if name.startswith("frontend"):
                grpc.append(f"127.0.0.1:{free_port()}")
                environment["MILLRACE_GRPC_ADDRESS"] = grpc[-1]
            module = f"services.{name.partition('-')[0]}"
            services[name] = await stack.enter_async_context(Service(module, environment))
        yield Fleet(grpc=grpc, metrics=metrics, workers=services)


def loads(seconds: int) -> list[list[str]]:
    """Arguments of `millrace load`."""
    chat = ["-m", "pycode", "--max-tokens", "48:16", "--option", "temperature=0.8", "--seconds", str(seconds)]
    drawn = ["--prompt-tokens", "60:20"]
    return [
        [*chat, *drawn, "--rate", "2", "--priority", "interactive", "--timeout", "4"],
        [*chat, *drawn, "--steps", "1,20,1"],
        [*chat, "--prompt", PROMPT, "--rate", "1", "--priority", "batch"],
        ["-m", "digits", "--rate", "8", "--file", str(DIGIT), "--seconds", str(seconds)],
    ]


async def load(grpc: list[str], arguments: list[str]) -> None:
    own = ["--address", ",".join(grpc), "--generators", "1", "--warmup", "0", "--no-report", "--no-live"]
    out = ["--out", f"build/dashboard/{abs(hash(tuple(arguments)))}.json"]
    command = [sys.executable, "-m", "millrace.cli", "load", *arguments, *own, *out]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    await process.wait()


async def kill(worker: Service, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await asyncio.to_thread(worker.kill)
    await asyncio.sleep(AWAY_S)
    await asyncio.to_thread(worker.start, BEGIN_S)


async def ask(prometheus: Prometheus, panel: Panel, begin: float, end: float) -> Shown:
    """Raises ValueError where a query has no answer."""
    lines = []
    for query in panel.queries:
        answered = await prometheus.range(query.expression, begin, end)
        if not answered:
            raise ValueError(f"{panel.title}: nothing answers {query.expression}")
        lines += [Drawn(_legend(query, line.labels), line.points) for line in answered]
    return panel, lines


def _legend(query: Query, labels: Mapping[str, str]) -> str:
    text = query.legend
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text
