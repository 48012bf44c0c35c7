"""From what clients saw to counts and sentences: what the checker found, and what took too long."""

from collections.abc import Iterable, Sequence
from itertools import chain

from millrace.queue import End, Ending, Entry, Result, Seal
from services.worker.stub import stub_token
from tests.chaos.experiment import percentile
from tests.chaos.load import MODEL
from tests.checker.check import check
from tests.checker.history import Difference, JobHistory, Received
from tests.survival.fleet import Fleet, Transcript
from tests.survival.verdict import differences

KINDS = {
    "lost": ("lost result", "gap in the log"),
    "repeated": ("repeated result", "two ends"),
    "out of order": ("reordered result", "seal out of order"),
    "zombie": ("zombie result",),
}
"""The checker's kinds by the promise that they break; whatever else it finds is `wrong`."""
HISTORY_BYTES = 8
TOLD = 3
"""Jobs that a sentence names."""


async def judge(running: Fleet, seen: Sequence[Transcript]) -> tuple[dict[str, int], list[str]]:
    """Counts of jobs by their first difference, and a sentence for each kind that was found."""
    found = await differences(running, MODEL, seen, stub=True)
    counts = {"streams": len(seen), "tokens": sum(transcript.tokens for transcript in seen)}
    return counts | tally(found), sentences(found)


def judge_by_themselves(seen: Sequence[Transcript]) -> tuple[dict[str, int], list[str]]:
    """As `judge`, for jobs of one attempt whose logs are gone: each transcript stands for its own."""
    found = check((_as_its_own_log(transcript) for transcript in seen), truth=stub_token)
    counts = {"streams": len(seen), "tokens": sum(transcript.tokens for transcript in seen)}
    return counts | tally(found), sentences(found)


def _as_its_own_log(transcript: Transcript) -> JobHistory:
    received = [Received(message=message, at=0.0) for message in transcript.messages]
    log: list[Entry] = [Seal(last_offset=0, epoch=1, holder="")]
    for message in transcript.messages:
        body, history = message.SerializeToString(), message.history.to_bytes(HISTORY_BYTES, "little")
        log.append(Result(offset=message.offset, history=history, body=body))
    log.append(End(last_offset=len(transcript.messages), ending=Ending()))
    return JobHistory(job=f"default:{transcript.job_id}", received=received, code=transcript.code, log=log)


def added(*counts: dict[str, int]) -> dict[str, int]:
    """Sums of counts by name."""
    return {name: sum(one.get(name, 0) for one in counts) for name in dict.fromkeys(chain.from_iterable(counts))}


def tally(found: Sequence[Difference]) -> dict[str, int]:
    counts = {name: sum(one.kind in kinds for one in found) for name, kinds in KINDS.items()}
    return counts | {"wrong": len(found) - sum(counts.values())}


def sentences(found: Iterable[Difference]) -> list[str]:
    by_kind: dict[str, list[str]] = {}
    for one in found:
        by_kind.setdefault(one.kind, []).append(f"{one.job} ({one.detail})")
    return [f"{kind} in {len(jobs)} jobs: {', '.join(jobs[:TOLD])}" for kind, jobs in by_kind.items()]


def endings(seen: Sequence[Transcript], tokens: int) -> list[str]:
    """A sentence for the calls that did not end well with so many tokens."""
    bad = [one for one in seen if one.tokens != tokens or one.reason]
    names = (f"{one.job_id} ({one.tokens} tokens, {one.reason or _ending(one)})" for one in bad[:TOLD])
    return [f"{len(bad)} of {len(seen)} streams did not end well: {', '.join(names)}"] if bad else []


def _ending(transcript: Transcript) -> str:
    return "no end" if transcript.code is None else transcript.code.name


def within(name: str, values: Sequence[float], bound_s: float, *, share: float = 0.99) -> tuple[str, list[str]]:
    """The figure for a percentile that must be below its bound, and a sentence where it is not."""
    value = percentile(list(values), share)
    figure = f"{value:.2f} s (< {bound_s:g} s)"
    broken = [] if value < bound_s else [f"{name} of {len(values)} is {value:.2f} s, not below {bound_s:g} s"]
    return figure, broken
