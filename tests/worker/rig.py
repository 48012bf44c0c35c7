"""Workers in the test's own loop, with a repository that the test writes, and what may be asked of them."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from millrace import AsyncClient
from millrace.queue import Commands, ModelState, Registry, Verb, WorkerEntry, connect
from services.worker.settings import WorkerSettings
from services.worker.worker import Worker
from tests import graphs
from tests.eventually import eventually
from tests.frontend.playing import frontend

WITHIN_S = 30.0
ROW = np.array([[1, 2, 3]], np.float32)


def line(factor: float) -> onnx.ModelProto:
    """y = factor · x, for rows of three."""
    return graphs.model(
        [("Mul", ["x", "factor"], ["y"], {})],
        {"x": (onnx.TensorProto.FLOAT, ["batch", 3])},
        {"y": (onnx.TensorProto.FLOAT, ["batch", 3])},
        {"factor": np.array(factor, np.float32)},
    )


def write(models: Path, factor: float, version: str = "1", name: str = "line", **batching: Any) -> Path:
    """A version that multiplies by `factor`; one that is there already is replaced in one step."""
    folder = models / name / version
    if folder.exists():
        draft = graphs.write_graph(models.parent / "draft", name, line(factor), version, **batching)
        folder.rename(models.parent / f"old-{len(list(models.parent.glob('old-*')))}")
        draft.rename(folder)
        shutil.rmtree(models.parent / "draft")
        return folder
    return graphs.write_graph(models, name, line(factor), version, **batching)


class Rig:
    """One Valkey, and workers on it."""

    def __init__(self, redis_url: str, models: Path, stack: AsyncExitStack) -> None:
        self.url, self.models = redis_url, models
        self.redis = connect(redis_url)
        self.registry, self.commands = Registry(self.redis), Commands(self.redis)
        self._stack = stack

    async def start(self, worker_id: str = "w1", **settings: Any) -> Worker:
        """A worker that is ready. It is stopped at the test's end."""
        worker, task = self.begin(worker_id, **settings)

        async def ready() -> bool:
            if task.done():
                await task
            return any(entry.worker_id == worker_id and entry.state == "ready" for entry in await self.workers())

        await eventually(ready, WITHIN_S)
        return worker

    def begin(self, worker_id: str = "w1", **settings: Any) -> "tuple[Worker, asyncio.Task[None]]":
        """One that is about to load its models."""
        defaults: dict[str, Any] = {"models": str(self.models), "device": "cpu", "threads": 1, "drain_s": 0.0}
        worker = Worker(WorkerSettings(redis_url=self.url, worker_id=worker_id, **(defaults | settings)))
        task = asyncio.create_task(worker.run())
        self._stack.push_async_callback(_stop, worker, task)
        return worker, task

    async def workers(self) -> list[WorkerEntry]:
        return await self.registry.workers()

    async def states(self, worker_id: str = "w1") -> dict[str, ModelState]:
        """How each version stands on a worker."""
        return {
            str(one.model): one.state
            for entry in await self.workers()
            if entry.worker_id == worker_id
            for one in entry.index
        }

    async def reason(self, model: str, worker_id: str = "w1") -> str:
        return next(
            one.reason
            for entry in await self.workers()
            if entry.worker_id == worker_id
            for one in entry.index
            if str(one.model) == model
        )

    async def until(self, model: str, state: ModelState, worker_id: str = "w1") -> None:
        async def so() -> bool:
            return (await self.states(worker_id)).get(model) is state

        await eventually(so, WITHIN_S)

    async def command(self, name: str, verb: Verb, worker_id: str = "w1", repository: str = "models") -> str:
        """Gives a command and waits until the worker has carried it out; answers why it could not."""
        serial = await self.commands.give(repository, name, verb)

        async def carried() -> list[str]:
            return [
                one.failure
                for entry in await self.workers()
                if entry.worker_id == worker_id
                for one in entry.carried
                if one.name == name and one.serial >= serial
            ]

        return (await eventually(carried, WITHIN_S))[0]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        async with frontend(self.url) as served, AsyncClient(served.grpc_address) as client:
            yield client


async def _stop(worker: Worker, task: "asyncio.Task[None]") -> None:
    worker.stop()
    await asyncio.gather(task, return_exceptions=True)


async def factor(client: AsyncClient, version: str = "") -> float:
    """By what the model that answers multiplies."""
    outputs = await client.infer("line", {"x": ROW}, model_version=version, timeout_s=WITHIN_S)
    found = outputs["y"] / ROW
    assert np.allclose(found, found[0, 0])
    return float(found[0, 0])


class Stream:
    """Callers that ask one after the other, all the time, and note what they get."""

    def __init__(self, ask: Callable[[], Any], callers: int = 4) -> None:
        self._ask, self._callers = ask, callers
        self.answers: list[Any] = []
        self.failures: list[BaseException] = []
        self._over = False

    async def __aenter__(self) -> "Stream":
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        await self.more()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def more(self) -> None:
        """Returns when each caller has had further answers, or failures."""
        wanted = len(self.answers) + len(self.failures) + 2 * self._callers
        await eventually(lambda: len(self.answers) + len(self.failures) >= wanted, WITHIN_S)

    async def _call(self) -> None:
        while not self._over:
            try:
                self.answers.append(await self._ask())
            except Exception as error:
                self.failures.append(error)
                await asyncio.sleep(0.01)
