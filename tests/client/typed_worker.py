"""A worker that plays models of typed tasks: it answers with what a test gives it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.message import Message

from millrace.queue import Emission, Ending, Lease, ModelEntry, Verdict
from millrace.queue import history as running
from tests.eventually import eventually
from tests.frontend.playing import HISTORY_TAG
from tests.frontend.tensors import TensorWorker


def entry(task: str) -> ModelEntry:
    """The model `typed`, which takes one kind of requests."""
    return ModelEntry(name="typed", version="1", task=task, digest="", tasks=(task,))


class Held:
    """A job that the played worker holds."""

    def __init__(self, worker: "TypedWorker", lease: Lease, request: Any) -> None:
        self._worker, self.lease, self.request = worker, lease, request
        self.offset, self._history = lease.last_offset, lease.history

    async def give(self, result: Message, ending: Ending | None = None) -> None:
        """One result, and perhaps the end."""
        self.offset, body = self.offset + 1, result.SerializeToString()
        self._history = running.extend(self._history, body)
        emission = Emission(
            ref=self.lease.ref,
            token=self.lease.token,
            offset=self.offset,
            history=self._history,
            result=body + HISTORY_TAG + self._history,
            ending=ending,
        )
        assert await self._worker.queue.emit(self.lease.ref.model, [emission]) == [Verdict.OK]


class TypedWorker(TensorWorker):
    """Serves `typed`."""

    async def next(self, kind: type[Any], within_s: float = 5.0) -> Held:
        """The next job that waits."""

        async def taken() -> Held | None:
            self._sequence += 1
            leases = (await self.queue.take(self.model, "typed", self._sequence, jobs=1, cost=1e9, alone=True)).leases
            if not leases:
                return None
            payload = leases[0].payload or await self.queue.payload(leases[0].ref, leases[0].fingerprint)
            return Held(self, leases[0], kind.FromString(payload or b""))

        return await eventually(taken, within_s)


@asynccontextmanager
async def typed(redis_url: str, task: str) -> AsyncIterator[TypedWorker]:
    async with TypedWorker(redis_url, entry(task)) as played:
        yield played
