"""The border to Redis: between the queue's types and what its scripts take and answer."""

from collections.abc import Sequence
from typing import Any

import msgpack

from millrace.errors import Code
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.types import (
    Emission,
    End,
    EndedJob,
    Ending,
    Entry,
    JobRecord,
    Lease,
    Limits,
    Priority,
    Result,
    Seal,
    State,
    Submission,
    Taken,
)

Argument = str | bytes | int | float
END_SEQUENCE = 999_999


def submit_arguments(submission: Submission, limits: Limits, not_after_ms: int, payload: bytes) -> list[Argument]:
    """ARGV of submit.lua. `payload` is empty where it is in its key already."""
    return [
        submission.ref.job,
        submission.ref.tenant,
        int(submission.priority),
        submission.weight,
        submission.cost,
        submission.fingerprint,
        len(submission.payload),
        submission.timeout_ms,
        submission.resume_window_ms,
        int(submission.wanted_to_deadline),
        limits.retention_ms if submission.retained else limits.linger_ms,
        submission.watcher,
        limits.interest_ms,
        not_after_ms,
        limits.max_waiting_jobs,
        limits.max_waiting_cost,
        limits.max_tenant_jobs,
        limits.max_payload_bytes,
        submission.task,
        payload,
        -1 if submission.worker_within_ms is None else submission.worker_within_ms,
        submission.trace,
    ]


def emit_arguments(emissions: Sequence[Emission]) -> list[Argument]:
    """The part of emit.lua's ARGV that comes once for each job."""
    flat: list[Argument] = []
    for emission in emissions:
        ending = emission.ending or Ending()
        flat += [emission.ref.job, emission.token, emission.offset, emission.history, emission.result]
        flat += [int(emission.ending is not None), int(ending.code), ending.reason, ending.message]
        flat += [emission.cost, ending.field, emission.timing]
    return flat


def decode_taken(model: ModelVersion, reply: bytes) -> Taken:
    hold, leases, given = msgpack.unpackb(reply, raw=True)
    return Taken(
        hold=bool(hold),
        leases=tuple(_decode_lease(model, lease) for lease in leases or ()),
        given_back=tuple(token.decode() for token in given or ()),
    )


def _decode_lease(model: ModelVersion, fields: list[Any]) -> Lease:
    job, token, epoch, strikes, attempts, last, history, cost, fingerprint, submitted, first, deadline, *rest = fields
    taken, payload, priority, task, preemptions, trace = rest
    return Lease(
        ref=JobRef.parse(model, job.decode()),
        token=token.decode(),
        epoch=epoch,
        strikes=strikes,
        attempts=attempts,
        priority=Priority(priority),
        last_offset=last,
        history=history,
        cost=cost,
        fingerprint=fingerprint.decode(),
        submit_ms=submitted,
        first_take_ms=first,
        take_ms=taken,
        deadline_ms=deadline,
        task=task.decode(),
        payload=payload or None,
        preemptions=preemptions,
        trace=trace.decode(),
    )


def decode_entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    """One entry of a results log; its id tells its kind."""
    offset, sequence = (int(part) for part in entry_id.split(b"-"))
    if b"body" in fields:
        return Result(offset=offset, history=fields[b"history"], body=fields[b"body"])
    if sequence == END_SEQUENCE:
        return End(last_offset=offset, ending=_decode_ending(fields))
    return Seal(last_offset=offset, epoch=int(fields[b"epoch"]), holder=fields[b"holder"].decode())


def _decode_ending(fields: dict[bytes, bytes]) -> Ending:
    return Ending(
        code=Code(int(fields[b"code"])),
        reason=fields[b"reason"].decode(),
        message=fields[b"message"].decode(),
        field=fields[b"field"].decode(),
    )


def decode_mailbox(message: bytes) -> list[tuple[str, Result | End]]:
    """The entries of one mailbox message: the job's name, and what happened to it."""
    decoded: list[tuple[str, Result | End]] = []
    for job, offset, history, body, ending in msgpack.unpackb(message, raw=True):
        if ending:
            code, reason, text, field = ending
            end = Ending(code=Code(code), reason=reason.decode(), message=text.decode(), field=field.decode())
            decoded.append((job.decode(), End(last_offset=offset, ending=end)))
        else:
            decoded.append((job.decode(), Result(offset=offset, history=history, body=body or None)))
    return decoded


def decode_load(load: dict[bytes, bytes], pace: dict[bytes, bytes]) -> dict[str, float]:
    """The hashes load and pace, as far as they say how busy a model is."""
    costs = [float(load.get(f"cost:{priority:d}".encode(), 0)) for priority in sorted(Priority)]
    full_cost, full_ms, cost, estimate = (
        float(pace.get(field, default))
        for field, default in ((b"full_cost", 0), (b"full_ms", 1), (b"mean_cost", 1), (b"mean_estimate", 1))
    )
    return {
        "jobs": float(load.get(b"jobs", 0)),
        "cost": sum(costs),
        "standard_cost": sum(costs[1:]),
        "interactive_cost": costs[-1],
        "bytes": float(load.get(b"bytes", 0)),
        "capacity": 1000 * full_cost / full_ms * estimate / cost,
    }


def decode_ended(model: ModelVersion, packed: bytes) -> EndedJob:
    job, task, code, reason, submitted, taken, ended, attempts, preempted, last, cost, trace = msgpack.unpackb(
        packed, raw=True
    )
    return EndedJob(
        ref=JobRef.parse(model, job.decode()),
        task=task.decode(),
        code=Code(code),
        reason=reason.decode(),
        submit_ms=submitted,
        first_take_ms=taken,
        end_ms=ended,
        attempts=attempts,
        preemptions=preempted,
        last_offset=last,
        cost=cost,
        trace=trace.decode(),
    )


def decode_record(ref: JobRef, fields: dict[bytes, bytes]) -> JobRecord:
    """The hash job:JOB."""
    state = State(fields[b"state"].decode())
    ended = int(fields.get(b"ended", b"0"))
    return JobRecord(
        ref=ref,
        task=fields[b"task"].decode(),
        state=state,
        fingerprint=fields[b"fingerprint"].decode(),
        priority=Priority(int(fields[b"class"])),
        last_offset=int(fields[b"last"]),
        history=fields[b"history"],
        attempts=int(fields[b"attempts"]),
        strikes=int(fields[b"strikes"]),
        holder=fields[b"holder"].decode(),
        submit_ms=int(fields[b"submitted"]),
        deadline_ms=int(fields[b"deadline"]),
        end_ms=ended,
        expire_ms=ended + int(fields[b"retain"]) if ended else 0,
        ending=_decode_ending(fields) if state is State.ENDED else None,
        first_take_ms=int(fields.get(b"taken", b"0")),
        preemptions=int(fields.get(b"preempted", b"0")),
        timing=fields.get(b"timing", b""),
        trace=fields.get(b"trace", b"").decode(),
    )
