"""Names the first difference between what was promised of a job and what happened to it.

Two readings, each against the other: the log by itself (offsets, running history, seals, one end), then the client's
transcript against the log. With a truth, a function that knows which token a lease must write at which position, a
zombie's write and a silent restart show as well.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from millrace.queue import End, Entry, Result, Seal
from millrace.queue import history as running
from millrace.v1.generation_pb2 import GenerateResponse
from tests.checker.history import Difference, JobHistory, Received

Truth = Callable[[str, int, int, int], int]
"""The token of (job, position, token before it, epoch): `services.worker.stub.stub_token`."""
Finding = tuple[str, str]


def check(jobs: Iterable[JobHistory], *, truth: Truth | None = None, stall_s: float | None = None) -> list[Difference]:
    """The first difference of each job that has one. `stall_s`: the longest wait allowed between two messages."""
    differences = []
    for history in jobs:
        finding = next(_findings(history, truth, stall_s), None)
        if finding is not None:
            differences.append(Difference(job=history.job, kind=finding[0], detail=finding[1]))
    return differences


def leaked(keys: Iterable[str]) -> list[str]:
    """Keys that belong to a job; when everything has ended and expired, there must be none."""
    kinds = (":job:", ":payload:", ":results:", ":waiting:", ":struck", ":hold", ":running", ":due", ":fair:")
    return sorted(key for key in keys if key.startswith("mr:job-index:") or any(kind in key for kind in kinds))


def _findings(history: JobHistory, truth: Truth | None, stall_s: float | None) -> Iterator[Finding]:
    if history.settled is not None and len(history.log) > history.settled:
        yield "work after the cancel", repr(history.log[history.settled])
    yield from _log(history.log)
    if truth is not None:
        yield from _tokens(history.job, history.log, truth)
    yield from _transcript(history.received, history.log)
    if history.settled is None:
        yield from _ending(history)
    if stall_s is not None:
        yield from _stalls(history.received, stall_s)


# ── the log by itself ────────────────────────────────────────────────────────────────────────────────────────────


def _log(log: Sequence[Entry]) -> Iterator[Finding]:
    offset, history, epoch = 0, running.EMPTY, 0
    ends = [index for index, entry in enumerate(log) if isinstance(entry, End)]
    if not ends:
        yield "no end", f"{len(log)} entries"
    if len(ends) > 1:
        yield "two ends", f"entries {ends}"
    if ends and ends[0] != len(log) - 1:
        yield "work after the end", repr(log[ends[0] + 1])
    for entry in log:
        if isinstance(entry, Seal):
            if entry.epoch <= epoch or entry.last_offset != offset:
                yield "seal out of order", f"{entry} behind offset {offset}, epoch {epoch}"
            epoch = entry.epoch
        elif isinstance(entry, Result):
            if entry.offset != offset + 1:
                yield "gap in the log", f"offset {entry.offset} behind {offset}"
            offset, history = entry.offset, running.extend(history, _body(entry)[: -running.FIELD_BYTES])
            if history != entry.history:
                yield "history", f"at offset {offset}"
        elif entry.last_offset != offset:
            yield "gap in the log", f"end behind {entry.last_offset}, results to {offset}"


def _tokens(job: str, log: Sequence[Entry], truth: Truth) -> Iterator[Finding]:
    position, previous, epochs = 0, 0, [0]
    for entry in log:
        if isinstance(entry, Seal):
            epochs.append(entry.epoch)
        elif isinstance(entry, Result):
            for token in _token_ids(_parse(entry)):
                if token != truth(job, position, previous, epochs[-1]):
                    yield _blame(job, token, position, previous, epochs, truth), f"offset {entry.offset}"
                position, previous = position + 1, token


def _blame(job: str, token: int, position: int, previous: int, epochs: Sequence[int], truth: Truth) -> str:
    if any(token == truth(job, position, previous, epoch) for epoch in epochs[:-1]):
        return "zombie result"
    if position > 0 and token == truth(job, 0, 0, epochs[-1]):
        return "restart from zero"
    return "wrong token"


# ── the transcript against the log ───────────────────────────────────────────────────────────────────────────────


def _transcript(received: Sequence[Received], log: Sequence[Entry]) -> Iterator[Finding]:
    logged = {entry.offset: _body(entry) for entry in log if isinstance(entry, Result)}
    seen: set[int] = set()
    for index, item in enumerate(received, 1):
        offset = item.message.offset
        if offset in seen:
            yield "repeated result", f"offset {offset}"
        if offset not in logged:
            yield "result that is not in the log", f"offset {offset}"
        elif item.message.SerializeToString() != logged[offset]:
            yield "result that is not the log's", f"offset {offset}"
        if offset != index:
            missing = index not in {later.message.offset for later in received}
            yield ("lost result", f"offset {index}") if missing else ("reordered result", f"offset {offset}")
        seen.add(offset)


def _ending(history: JobHistory) -> Iterator[Finding]:
    end = history.log[-1]
    last = max((item.message.offset for item in history.received), default=0)
    if history.code is None:
        yield "call without an end", f"after offset {last}"
    elif isinstance(end, End) and history.code is not end.ending.code:
        yield "other ending", f"{history.code.name} instead of {end.ending.code.name}"
    elif isinstance(end, End) and last != end.last_offset:
        yield "lost result", f"offset {last + 1}"


def _stalls(received: Sequence[Received], stall_s: float) -> Iterator[Finding]:
    for earlier, later in pairwise(received):
        if later.at - earlier.at > stall_s:
            yield "stall", f"{later.at - earlier.at:.2f} s before offset {later.message.offset}"


def _body(result: Result) -> bytes:
    assert result.body is not None
    return result.body


def _parse(result: Result) -> GenerateResponse:
    return GenerateResponse.FromString(_body(result))


def _token_ids(message: GenerateResponse) -> list[int]:
    return [token for delta in message.deltas for token in delta.token_ids]
