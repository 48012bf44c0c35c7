"""What has gone wrong so far: each call is judged as it ends, and nothing of it is kept but its verdict."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from millrace.errors import Code, Unavailable
from millrace.queue import End, Entry, JobQueue, JobRef, ModelVersion, Result
from millrace.v1.generation_pb2 import GenerateResponse
from services.worker.stub import stub_token
from tests.checker.check import check
from tests.checker.history import JobHistory, Received

STUB = ModelVersion("stub", "1")
END_S, PAUSE_S = 20.0, 0.1
"""How long a job may take to end when its caller is gone, faults included."""
KEPT = 20
"""Failures that are told; the rest is counted."""


class Judge:
    """`queue` sees Redis itself, not through what breaks the services' connections."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self.failures: list[str] = []
        self.failed = 0
        self.stories = Counter[str]()
        """How many calls of each kind have ended as they should."""
        self.streams = self.tokens = 0

    def right(self, kind: str) -> None:
        self.stories[kind] += 1

    def wrong(self, kind: str, what: str) -> None:
        self.failed += 1
        if len(self.failures) < KEPT:
            self.failures.append(f"{kind}: {what}")

    async def stream(
        self, kind: str, tenant: str, job_id: str, received: Sequence[Received], *, whole: bool = True
    ) -> None:
        """A stream against its log, when its job has ended. Of a stream that was left, only what was received must be
        right, and the log itself."""
        ref = JobRef(STUB, tenant, job_id)
        log = await self._log(ref)
        code = Code.OK if whole else _code(log)
        if not whole:
            received = [*received, *_rest(log, len(received))]
        self.streams += 1
        self.tokens += len(received)
        found = check([JobHistory(job=ref.job, received=received, code=code, log=log)], truth=stub_token)
        for one in found:
            self.wrong(kind, f"{one.kind} in {one.job}: {one.detail}")
        if not found:
            self.right(kind)

    async def _log(self, ref: JobRef) -> list[Entry]:
        """The whole log, once the job has ended; what there is of it where it does not end."""
        deadline = time.monotonic() + END_S
        log: list[Entry] = []
        while time.monotonic() < deadline:
            with suppress(Unavailable):
                log = await self._queue.read(ref, 0, 1_000_000)
            if log and isinstance(log[-1], End):
                break
            await asyncio.sleep(PAUSE_S)
        return log


def _rest(log: Sequence[Entry], after: int) -> list[Received]:
    """What a caller would have received behind offset `after`."""
    results = (entry for entry in log if isinstance(entry, Result) and entry.offset > after)
    return [Received(message=GenerateResponse.FromString(result.body or b""), at=0.0) for result in results]


def _code(log: Sequence[Entry]) -> Code | None:
    return next((entry.ending.code for entry in log if isinstance(entry, End)), None)
