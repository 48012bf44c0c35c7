"""What `verify` holds against the answers while they arrive.

Of a stream: its offsets are 1, 2, 3, …; its running history is that of the bytes received (`millrace.queue.history`),
so that a delta that was altered, or is another job's, shows; it ends once, with its usage; and the usage counts the
tokens that came. Of an answer in one piece: equal requests have equal answers, as far as arithmetic allows.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import grpc.aio

from millrace.errors import DataLoss
from millrace.load.result import Fault, Verification
from millrace.queue import history as running

KEPT = 100
AHEAD, AHEAD_S = 256, 2.0
"""How many messages, and for how long, a stream with a gap is read on to see whether what is missing comes later."""
REASON = "STREAM_FAULTY"
TOLERANCE = 1e-3
"""By what share of the largest value equal requests' answers may differ: what else is in a batch moves last bits, by
more where a device computes in half precision. Another request's answer differs by more."""


class Kind(StrEnum):
    """Of faults."""

    LOST = "lost result"
    REPEATED = "repeated result"
    REORDERED = "reordered result"
    ALTERED = "altered result"
    FOREIGN = "another job's result"
    UNENDED = "call without an end"
    OVERRUN = "work after the end"
    MISCOUNTED = "wrong count"
    UNEQUAL = "other answer"


@dataclass(frozen=True, slots=True)
class Finding:
    kind: Kind
    detail: str


class Verifier:
    """What a generator's answers were checked for, and what was found."""

    def __init__(self) -> None:
        self.streams = self.messages = self._faults = 0
        self._kept: list[Fault] = []

    def note(self, job_id: str, finding: Finding) -> DataLoss:
        """Counts it; the error that its call ends with."""
        self._faults += 1
        if len(self._kept) < KEPT:
            self._kept.append(Fault(job_id=job_id, kind=finding.kind, detail=finding.detail))
        return DataLoss(f"{finding.kind}: {finding.detail}", reason=REASON)

    def verification(self) -> Verification:
        return Verification(
            streams=self.streams, deltas=self.messages, faults=tuple(self._kept), fault_count=self._faults
        )


class Stream:
    """One job's results, over as many calls as it takes."""

    def __init__(self, verifier: Verifier, job_id: str) -> None:
        self.job_id = job_id
        self._verifier = verifier
        self._offset, self._history, self._has_ended = 0, running.EMPTY, False
        verifier.streams += 1

    @property
    def next_offset(self) -> int:
        return self._offset + 1

    def note(self, finding: Finding) -> DataLoss:
        return self._verifier.note(self.job_id, finding)

    def see(self, message: Any) -> Finding | None:
        """The next message. What is lost may still be only late: the caller can look."""
        self._verifier.messages += 1
        offset = message.offset
        if self._has_ended:
            return Finding(Kind.OVERRUN, f"offset {offset} behind the end at {self._offset}")
        if message.job_id != self.job_id:
            return Finding(Kind.FOREIGN, f"offset {offset} is of {message.job_id or 'no job'}")
        if offset <= self._offset:
            return Finding(Kind.REPEATED, f"offset {offset} behind {self._offset}")
        if offset > self._offset + 1:
            return Finding(Kind.LOST, f"offset {self._offset + 1}: {offset} came instead")
        return self._follow(message)

    def finish(self) -> Finding | None:
        """The call has ended, and well."""
        return None if self._has_ended else Finding(Kind.UNENDED, f"after offset {self._offset}")

    def _follow(self, message: Any) -> Finding | None:
        body = message.SerializeToString()[: -running.FIELD_BYTES]
        self._history = running.extend(self._history, body)
        if running.to_field(self._history) != message.history:
            return Finding(Kind.ALTERED, f"offset {message.offset}: its history is not that of what was received")
        self._offset = message.offset
        return self._end(message)

    def _end(self, message: Any) -> Finding | None:
        """Whether it is the last, and whether that is as it should be."""
        self._has_ended = message.HasField("timing")
        return None


class Transcription(Stream):
    """It has a timing in its last message, and there alone."""


class Generation(Stream):
    """It has its usage in its last message, and there alone."""

    def __init__(self, verifier: Verifier, job_id: str) -> None:
        super().__init__(verifier, job_id)
        self._tokens = 0

    def _end(self, message: Any) -> Finding | None:
        self._tokens += sum(len(delta.token_ids) for delta in message.deltas)
        if not message.HasField("usage"):
            return None
        self._has_ended = True
        if not any(delta.finish_reason for delta in message.deltas):
            return Finding(Kind.UNENDED, f"offset {self._offset} has the usage and no finish reason")
        counted = message.usage.completion_tokens
        if counted != self._tokens:
            return Finding(Kind.MISCOUNTED, f"{counted} completion tokens in the usage, {self._tokens} received")
        return None


class Watched:
    """A call that is checked before its messages are passed on. It stands in for it where results are followed."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[Any, Any]", stream: Stream) -> None:
        self._call, self._stream = call, stream
        self._messages = call.__aiter__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Raises DataLoss at the first message that is not as it should be."""
        try:
            message = await self._messages.__anext__()
        except StopAsyncIteration:
            if finding := self._stream.finish():
                raise self._stream.note(finding) from None
            raise
        finding = self._stream.see(message)
        if finding is None:
            return message
        if finding.kind is Kind.LOST and await self._comes_later(self._stream.next_offset):
            finding = Finding(Kind.REORDERED, f"offset {message.offset} before {self._stream.next_offset}")
        raise self._stream.note(finding)

    async def _comes_later(self, offset: int) -> bool:
        try:
            async with asyncio.timeout(AHEAD_S):
                for _ in range(AHEAD):
                    if (await self._messages.__anext__()).offset == offset:
                        return True
        except (StopAsyncIteration, TimeoutError, grpc.aio.AioRpcError):
            pass
        return False

    def cancel(self) -> bool:
        return self._call.cancel()


class Answers:
    """The first answer to each request, which the later ones must equal."""

    def __init__(self, verifier: Verifier, same: Callable[[Any, Any], bool]) -> None:
        self._verifier, self._same = verifier, same
        self._first: dict[int, Any] = {}

    def see(self, variant: int, job_id: str, message: Any) -> None:
        """Raises DataLoss where it differs."""
        self._verifier.streams += 1
        self._verifier.messages += 1
        first = self._first.setdefault(variant, message)
        if first is not message and not self._same(first, message):
            raise self._verifier.note(job_id, Finding(Kind.UNEQUAL, f"to the request of variant {variant}"))
