"""What an actor means by a command: the verb of JobQueue that sent it, so that the referee can judge what it did."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.queue import JobQueue
from millrace.queue.types import Emission, Ending, Seen, Submission, Taken, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    submission: Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    frontend: str
    refs: tuple[JobRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwatch:
    frontend: str
    refs: tuple[JobRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndJob:
    ref: JobRef
    ending: Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    refs: tuple[JobRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    worker: str
    sequence: int
    jobs: int
    cost: float
    alone: bool
    offered: tuple[tuple[JobRef, str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    emissions: tuple[Emission, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    held: tuple[tuple[JobRef, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    held: tuple[tuple[JobRef, str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reap:
    pass


Verb = Submit | Watch | Unwatch | EndJob | Forget | Take | Emit | Renew | Release | Reap
_meant: ContextVar[Verb | None] = ContextVar("meant", default=None)


def meant() -> Verb | None:
    """The verb that runs in this context."""
    return _meant.get()


@contextmanager
def _meaning(verb: Verb) -> Iterator[None]:
    before = _meant.set(verb)
    try:
        yield
    finally:
        _meant.reset(before)


class Speaker:
    """The real queue, as far as actors use it; each verb that changes something says what it is."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self.limits = queue.limits
        self.read, self.inspect, self.locate = queue.read, queue.inspect, queue.locate
        self.payload, self.load, self.is_waited_for = queue.payload, queue.load, queue.is_waited_for

    async def submit(self, submission: Submission) -> JobRef:
        with _meaning(Submit(submission=submission)):
            return await self._queue.submit(submission)

    async def watch(self, frontend: str, refs: Sequence[JobRef]) -> dict[JobRef, Seen]:
        with _meaning(Watch(frontend=frontend, refs=tuple(refs))):
            return await self._queue.watch(frontend, refs)

    async def unwatch(self, frontend: str, refs: Sequence[JobRef]) -> None:
        with _meaning(Unwatch(frontend=frontend, refs=tuple(refs))):
            await self._queue.unwatch(frontend, refs)

    async def end(self, ref: JobRef, ending: Ending) -> bool:
        with _meaning(EndJob(ref=ref, ending=ending)):
            return await self._queue.end(ref, ending)

    async def forget(self, refs: Sequence[JobRef]) -> None:
        with _meaning(Forget(refs=tuple(refs))):
            await self._queue.forget(refs)

    async def take(
        self,
        model: ModelVersion,
        worker: str,
        sequence: int,
        *,
        jobs: int,
        cost: float,
        alone: bool,
        offered: Sequence[tuple[JobRef, str, int]] = (),
    ) -> Taken:
        verb = Take(worker=worker, sequence=sequence, jobs=jobs, cost=cost, alone=alone, offered=tuple(offered))
        with _meaning(verb):
            return await self._queue.take(model, worker, sequence, jobs=jobs, cost=cost, alone=alone, offered=offered)

    async def emit(self, model: ModelVersion, emissions: Sequence[Emission]) -> list[Verdict]:
        with _meaning(Emit(emissions=tuple(emissions))):
            return await self._queue.emit(model, emissions)

    async def renew(self, model: ModelVersion, held: Sequence[tuple[JobRef, str]]) -> list[Verdict]:
        with _meaning(Renew(held=tuple(held))):
            return await self._queue.renew(model, held)

    async def release(self, model: ModelVersion, held: Sequence[tuple[JobRef, str, int]]) -> list[Verdict]:
        with _meaning(Release(held=tuple(held))):
            return await self._queue.release(model, held)

    async def reap(self, model: ModelVersion) -> None:
        with _meaning(Reap()):
            await self._queue.reap(model)
