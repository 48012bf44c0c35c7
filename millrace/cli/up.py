"""`millrace up`: a whole Millrace on one machine, each part a process of its own."""

import asyncio
import importlib.util
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from millrace.cli.embedded import free_port, valkey_command
from millrace.cli.supervisor import Child, say

MODEL_FILES = ("*/*/model.yaml", "*/*/*.onnx")
MAX_FAILURES = 3
"""Deaths of one process, before all are ready, after which the start is given up."""
POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to start."""

    redis_url: str | None
    """None: an embedded Valkey."""
    frontends: int
    workers: int
    models: str
    """A folder, or a URL."""
    device: str
    grpc_port: int
    http_port: int
    log_level: str
    openai: bool = True
    """Frontends serve OpenAI's HTTP API."""
    page: bool = True
    """Frontends serve the page."""


class Fleet:
    """The processes of one plan."""

    def __init__(self, plan: Plan, folder: str) -> None:
        self._plan = plan
        self.failed = False
        port = free_port()
        self.redis_url = plan.redis_url or f"redis://127.0.0.1:{port}/0"
        self.redis = [] if plan.redis_url else [Child(name="valkey", command=valkey_command(port, folder), stop_s=5.0)]
        self.grpc: list[str] = []
        self.http: list[str] = []
        self.frontends = [self._frontend(index) for index in range(plan.frontends)]
        self.workers = [self._worker(index) for index in range(plan.workers)]

    @property
    def children(self) -> list[Child]:
        return [*self.redis, *self.frontends, *self.workers]

    def _environment(self) -> dict[str, str]:
        return {"MILLRACE_REDIS_URL": self.redis_url, "MILLRACE_LOG_LEVEL": self._plan.log_level}

    def _frontend(self, index: int) -> Child:
        grpc, http = (
            f"127.0.0.1:{port + 2 * index if port else free_port()}"
            for port in (self._plan.grpc_port, self._plan.http_port)
        )
        self.grpc.append(grpc)
        self.http.append(http)
        options = {
            "MILLRACE_GRPC_ADDRESS": grpc,
            "MILLRACE_HTTP_ADDRESS": http,
            "MILLRACE_OPENAI": "1" if self._plan.openai else "0",
            "MILLRACE_PAGE": "1" if self._plan.page else "0",
        }
        return Child(
            name=f"frontend-{index + 1}",
            command=[sys.executable, "-m", "services.frontend"],
            environment=self._environment() | options,
            ready_mark="frontend ready ",
        )

    def _worker(self, index: int) -> Child:
        threads = max((os.cpu_count() or 1) // self._plan.workers, 1)
        options = {
            "MILLRACE_MODELS": self._plan.models,
            "MILLRACE_DEVICE": self._plan.device,
            "MILLRACE_THREADS": os.environ.get("MILLRACE_THREADS", str(threads)),
            "MILLRACE_HTTP_ADDRESS": "",
        }
        return Child(
            name=f"worker-{index + 1}",
            command=[sys.executable, "-m", "services.worker"],
            environment=self._environment() | options,
            ready_mark="worker ready ",
            on_ready=lambda line: say(f"[worker-{index + 1}] {line}"),
        )

    async def stop(self) -> None:
        """Frontends first, while workers still finish their streams; Redis last."""
        for group in (self.frontends, self.workers, self.redis):
            await asyncio.gather(*(child.stop() for child in group))

    def ready_line(self) -> str:
        return f"millrace ready grpc={','.join(self.grpc)} http={','.join(self.http)}"


def check(plan: Plan) -> str | None:
    """Why the plan cannot be started, in words that say what to do; None where it can."""
    if importlib.util.find_spec("services") is None:
        return "the services are not here: run `millrace up` in a checkout of the repository"
    if "://" not in plan.models and not any(any(Path(plan.models).glob(pattern)) for pattern in MODEL_FILES):
        return f"no model in {plan.models}: it must hold NAME/VERSION/model.yaml, or a graph there (see --models)"
    return None


async def up(plan: Plan) -> int:
    """Runs the fleet until SIGINT or SIGTERM; answers the exit status."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        fleet = Fleet(plan, folder)
        say(f"starting {', '.join(child.name for child in fleet.children)}")
        tasks = [asyncio.create_task(child.run()) for child in fleet.children]
        starting = asyncio.create_task(_start(fleet, stop))
        await stop.wait()
        starting.cancel()
        say("millrace draining")
        await fleet.stop()
        for task in (*tasks, starting):
            task.cancel()
        await asyncio.gather(*tasks, starting, return_exceptions=True)
    say("millrace stopped")
    return 1 if fleet.failed else 0


async def _start(fleet: Fleet, stop: asyncio.Event) -> None:
    """Prints the ready line once every process is ready; gives up where one of them cannot start."""
    while not all(child.ready.is_set() for child in fleet.children):
        hopeless = [child.name for child in fleet.children if child.failures >= MAX_FAILURES]
        if hopeless:
            say(f"{', '.join(hopeless)} cannot start; its last lines above say why")
            fleet.failed = True
            stop.set()
            return
        await asyncio.sleep(POLL_S)
    print(fleet.ready_line(), flush=True)
