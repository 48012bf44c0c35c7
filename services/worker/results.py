"""From an engine's outputs to the results log: the worker's border between protobuf and the queue."""

import time
from dataclasses import dataclass, field

from google.protobuf.message import Message

from millrace.engine import Failure, Output
from millrace.queue import Emission, Ending, Lease
from millrace.queue import history as running
from millrace.v1.generation_pb2 import CompletionDelta, GenerateResponse, Usage
from millrace.v1.job_pb2 import Timing

MOST_PROMPT_LOGPROBS = 256
"""In one message."""
HISTORY_TAG = b"\x39"
"""Field 7, fixed64: `history`, in every message of a stream."""


@dataclass(slots=True, kw_only=True)
class Held:
    """A job that this worker holds: its lease, how far its log goes, and where its time went."""

    lease: Lease
    offset: int
    history: bytes
    cost: int = 0
    taken_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    first_output_at: float = 0.0
    usage: Usage = field(default_factory=Usage)
    """What a generation has come to, once it is whole."""

    @property
    def proven(self) -> bool:
        """Whether it has had a result under this lease, so that a death of the worker is not blamed on it."""
        return self.offset > self.lease.last_offset

    def ended(self, ending: Ending, timing: Timing) -> "Ended":
        return Ended(
            lease=self.lease, ending=ending, timing=timing, usage=self.usage, results=self.offset, cost=self.cost
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job that this worker has ended: its end is in its log."""

    lease: Lease
    ending: Ending
    timing: Timing
    usage: Usage
    """Empty where it does not generate."""
    results: int
    """In its log."""
    cost: int


def merge(earlier: object, later: object) -> bool:
    """Folds a later response of the same job into an earlier one; False where the type of response cannot be, or both
    tell of more of a prompt's tokens than one message may."""
    if not isinstance(earlier, GenerateResponse) or not isinstance(later, GenerateResponse):
        return False
    if later.prompt_logprobs and len(earlier.prompt_logprobs) + len(later.prompt_logprobs) > MOST_PROMPT_LOGPROBS:
        return False
    by_index = {delta.index: delta for delta in earlier.deltas}
    for delta in later.deltas:
        if delta.index in by_index:
            _append(by_index[delta.index], delta)
        else:
            earlier.deltas.append(delta)
    earlier.prompt_logprobs.extend(later.prompt_logprobs)
    if later.HasField("usage"):
        earlier.usage.CopyFrom(later.usage)
    return True


def _append(earlier: CompletionDelta, later: CompletionDelta) -> None:
    earlier.text += later.text
    earlier.token_ids.extend(later.token_ids)
    earlier.logprobs.extend(later.logprobs)
    if later.finish_reason:
        earlier.finish_reason = later.finish_reason
        earlier.stop_match = later.stop_match


def emissions(held: Held, outputs: list[Output], worker_id: str) -> list[Emission]:
    """What goes into the log for one job: each output's result at the next offset, and the end. Advances `held`."""
    return [_emission(held, output, worker_id) for output in outputs]


def _emission(held: Held, output: Output, worker_id: str) -> Emission:
    held.cost = max(held.cost, round(output.cost))
    ending = _ending(output.failure) if output.last else None
    result = output.result() if callable(output.result) else output.result
    if result is not None:
        held.first_output_at = held.first_output_at or time.monotonic()
    timing = timing_of(held, worker_id) if output.last else None
    serialised = timing.SerializeToString() if timing is not None else b""
    if result is None:
        lease = held.lease
        return Emission(ref=lease.ref, token=lease.token, ending=ending, cost=held.cost, timing=serialised)
    held.offset += 1
    if timing is not None:
        _set(result, timing=timing)
    _set(result, job_id=held.lease.ref.job_id, offset=held.offset)
    if isinstance(result, GenerateResponse) and result.HasField("usage"):
        held.usage = result.usage
    body = result.SerializeToString()
    held.history = running.extend(held.history, body)
    return Emission(
        ref=held.lease.ref,
        token=held.lease.token,
        offset=held.offset,
        history=held.history,
        result=body + HISTORY_TAG + held.history,
        ending=ending,
        timing=serialised,
        cost=held.cost,
    )


def _set(message: Message, **fields: object) -> None:
    for name, value in fields.items():
        if name not in message.DESCRIPTOR.fields_by_name:
            continue
        if isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)


def _ending(failure: Failure | None) -> Ending:
    if failure is None:
        return Ending()
    return Ending(code=failure.code, reason=failure.reason, message=failure.message, field=failure.field)


def timing_of(held: Held, worker_id: str) -> Timing:
    """Where a job's time went that ends now."""
    lease = held.lease
    timing = Timing(attempts=lease.attempts, preemptions=lease.preemptions, worker_id=worker_id)
    timing.queued.FromMilliseconds(max(lease.first_take_ms - lease.submit_ms, 0))
    timing.batching.FromNanoseconds(_nanoseconds(held.taken_at, held.started_at))
    timing.first_output.FromNanoseconds(_nanoseconds(held.started_at, held.first_output_at))
    timing.remaining_output.FromNanoseconds(_nanoseconds(held.first_output_at, time.monotonic()))
    return timing


def _nanoseconds(since: float, until: float) -> int:
    """0 where it has not come so far."""
    return max(int((until - since) * 1e9), 0) if since and until else 0
