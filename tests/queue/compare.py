"""All that can be seen of a job, from the server and from the oracle, in the same words."""

from typing import Any

from millrace.queue import wire
from millrace.queue.types import JobRecord
from tests.queue import truth
from tests.queue.ledger import Job
from tests.queue.rig import LIMITS, MODEL


def seen(keys: truth.Keys, job: str, fields: dict[str, bytes]) -> dict[str, Any]:
    """Everything about a job in the server, in the words of `foreseen`."""
    log = keys.get(f"{MODEL.base}results:{job}")
    running = keys.get(f"{MODEL.base}running")
    watchers = (watcher.split("=") for watcher in fields["watchers"].decode().split())
    return {
        "record": truth.record(MODEL, job, fields),
        "token": fields["token"].decode(),
        "lease_until": int(running.content.get(job, 0)) if running else 0,
        "epoch": int(fields["epoch"]),
        "keep_until": int(fields["keep_until"]),
        "watchers": {name: int(expiry) for name, expiry in watchers},
        "spent": int(fields["spent"]),
        "charged": float(fields["charged"]),
        "log": [wire.decode_entry(*entry) for entry in log.content] if log else [],
        "tokens": [entry[b"token"].decode() for _, entry in log.content if b"token" in entry] if log else [],
        "expires": keys[f"{MODEL.base}job:{job}"].expire_ms if fields["state"] == b"ended" else 0,
    }


def foreseen(job: Job) -> dict[str, Any]:
    """Everything about a job in the oracle."""
    ended = job.ending is not None
    end_ms = job.expire_ms - job.retention_ms(LIMITS) if ended else 0
    return {
        "record": JobRecord(
            ref=job.submission.ref,
            task=job.submission.task,
            state=job.state,
            fingerprint=job.submission.fingerprint,
            priority=job.priority,
            last_offset=job.last,
            history=job.history,
            attempts=job.attempts,
            strikes=job.strikes,
            holder=job.holder,
            submit_ms=job.submit_ms,
            deadline_ms=job.deadline_ms,
            end_ms=end_ms,
            expire_ms=job.expire_ms,
            ending=job.ending,
            first_take_ms=job.first_take_ms,
            preemptions=job.preemptions,
            timing=job.timing,
            trace=job.submission.trace,
        ),
        "token": job.token,
        "lease_until": job.lease_until if job.holder else 0,
        "epoch": job.epoch,
        "keep_until": job.keep_until,
        "watchers": job.watchers,
        "spent": job.spent,
        "charged": float(job.charged),
        "log": job.log,
        "tokens": job.tokens,
        "expires": job.expire_ms,
    }


def same(what: str, found: object, expected: object) -> None:
    """The queue and the oracle agree."""
    assert found == expected, f"{what}:\n   found {found}\nexpected {expected}"
