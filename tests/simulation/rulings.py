"""What each verb's answer means for the jobs, and whether it may be so."""

from dataclasses import replace
from typing import Any

from millrace.queue import wire
from millrace.queue.keys import ModelVersion
from millrace.queue.types import Emission, Lease, Taken, Verdict
from tests.simulation.book import Book
from tests.simulation.life import MAX_STRIKES, Life
from tests.simulation.promise import Broken
from tests.simulation.store import Outcome
from tests.simulation.verbs import Emit, EndJob, Forget, Reap, Release, Renew, Submit, Take, Unwatch, Verb, Watch


def verdicts(reply: list[bytes]) -> list[Verdict]:
    return [Verdict(answer.decode()) for answer in reply]


def apply(book: Book, model: ModelVersion, verb: Verb, outcome: Outcome, now: int, now_s: float) -> None:
    """Enters the verb's effect in the book. Raises Broken where its answer cannot be."""
    match verb:
        case Submit():
            _submit(book, model, verb, outcome.reply, now, now_s)
        case Watch(frontend=frontend, refs=refs):
            for life in _of(book, model, refs):
                life.watch(frontend, now, book.pulses[model])
        case Unwatch(frontend=frontend, refs=refs):
            for life in _of(book, model, refs):
                life.watchers.pop(frontend, None)
        case EndJob(ref=ref, ending=ending):
            if outcome.reply:
                life = book.find(ref)
                _must(life.ending is None, "I1", f"{life} was ended a second time")
                life.end(str(int(ending.code)), ending.reason)
        case Forget(refs=refs):
            here = [ref for ref in refs if ref.model == model]
            for ref, gone, log in zip(here, outcome.reply, outcome.logs, strict=True):
                if gone and ref in book.standing:
                    book.bury(ref, log, now_s)
        case Take():
            _take(book, model, verb, outcome.reply, now)
        case Emit(emissions=emissions):
            _emit(book, model, emissions, verdicts(outcome.reply), now)
        case Renew(held=held):
            for (ref, token), verdict in zip(held, verdicts(outcome.reply), strict=True):
                _renew(book, book.standing.get(ref), token, verdict, now)
        case Release(held=held):
            for (ref, token, _), verdict in zip(held, verdicts(outcome.reply), strict=True):
                _release(book, book.standing.get(ref), token, verdict)
        case Reap():
            _begin_reap(book, model, now)


def _must(holds: bool, promise: str, detail: str) -> None:
    if not holds:
        raise Broken(promise, detail)


def _of(book: Book, model: ModelVersion, refs: Any) -> list[Life]:
    found = (book.standing.get(ref) for ref in refs if ref.model == model)
    return [life for life in found if life is not None and life.ending is None]


# ── submit ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _submit(book: Book, model: ModelVersion, verb: Submit, reply: list[bytes], now: int, now_s: float) -> None:
    answer, *detail = reply
    book.counts[f"submit: {answer.decode()}"] += 1
    if answer == b"queued":
        book.accept(verb.submission, model, now, now_s)
    elif answer == b"exists":
        life = book.find(replace(verb.submission.ref, model=model))
        _must(detail[0].decode() == life.submission.fingerprint, "I7", f"{life} is said to be another request")


# ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _take(book: Book, model: ModelVersion, verb: Take, reply: bytes, now: int) -> None:
    sequence, before, at = book.latest_takes.get((model, verb.worker), (-1, b"", 0))
    if sequence == verb.sequence:
        book.counts["take: repeated"] += 1
        if reply == before:
            return
        forgotten = not at <= now < at + 2 * book.limits.lease_ms
        _must(forgotten, "I4", f"{verb.worker}'s take #{sequence} gave other leases when it was repeated")
    taken = wire.decode_taken(model, reply)
    if verb.sequence < sequence:
        book.counts["take: overtaken, with leases" if taken.leases else "take: overtaken"] += 1
    book.latest_takes[model, verb.worker] = verb.sequence, reply, now
    book.counts["take: hold" if taken.hold else "take: leases" if taken.leases else "take: nothing"] += 1
    if taken.hold:
        _hold(book, model, verb.worker, now)
    _give_way(book, verb, taken)
    for lease in taken.leases:
        life = book.find(lease.ref)
        _check_lease(book, life, verb, lease, now)
        if lease.strikes:
            book.counts["take: with a strike"] += 1
            book.holds.pop(model, None)
            _must(verb.alone and len(taken.leases) == 1, "I4", f"{life} has a strike and does not run alone")
        life.take(lease, now + book.limits.lease_ms)


def _give_way(book: Book, verb: Take, taken: Taken) -> None:
    """For each job beyond the worker's room, one that it offered and held, of a lower class than all that it took."""
    offered = {token: book.standing.get(ref) for ref, token, _ in verb.offered}
    for token in taken.given_back:
        life = offered.get(token)
        _must(life is not None and life.token == token, "I4", f"{life} gave way, and was not {verb.worker}'s to give")
        assert life is not None
        lowest = min((lease.priority for lease in taken.leases), default=life.submission.priority)
        _must(life.submission.priority < lowest, "I4", f"{life} gave way to one that is not above it")
        life.give_way()
        book.counts["take: one gave way"] += 1
    room = verb.jobs + len(taken.given_back)
    _must(len(taken.leases) <= room, "I6", f"{verb.worker} has room for {room} and was given {len(taken.leases)}")


def _hold(book: Book, model: ModelVersion, worker: str, now: int) -> None:
    """One worker at a time makes room for a job with a strike."""
    holder, until = book.holds.get(model, (worker, 0))
    _must(holder == worker or now >= until, "I4", f"{worker} and {holder} make room for the same job")
    book.holds[model] = worker, now + book.limits.lease_ms


def _check_lease(book: Book, life: Life, verb: Take, lease: Lease, now: int) -> None:
    pulse = book.pulses[life.submission.ref.model]
    _must(life.ending is None, "I5", f"{life} was started behind its end")
    _must(not life.is_late(now), "I5", f"{life} was started behind its deadline")
    _must(life.is_wanted(now, pulse), "I5", f"{life} was started when nobody wanted it")
    _must(lease.strikes < MAX_STRIKES, "I4", f"{life} was started with {lease.strikes} strikes")
    _must(lease.cost <= verb.cost, "I6", f"{life} does not fit {verb.worker}")
    _must(lease.fingerprint == life.submission.fingerprint, "I7", f"{life} runs another request")


def _emit(book: Book, model: ModelVersion, emissions: tuple[Emission, ...], answers: list[Verdict], now: int) -> None:
    dropped: set[Life] = set()
    for emission, verdict in zip(emissions, answers, strict=True):
        book.counts[f"emit: {verdict}"] += 1
        life = book.standing.get(emission.ref)
        if verdict is Verdict.OK:
            _must(life is not None, "I3", f"{emission.ref.job} was written to, and is not there")
            assert life is not None
            _check_holds(book, life, emission.token, now)
            _write(book, life, emission, now)
        elif life is None:
            _must(verdict is Verdict.LOST, "I3", f"{emission.ref.job} is gone, and an emit was answered {verdict}")
        elif verdict is Verdict.UNWANTED:
            _check_unwanted(book, life, now)
            dropped.add(life)
        else:
            _check_refused(life, emission, verdict, is_dropped=life in dropped)


def _write(book: Book, life: Life, emission: Emission, now: int) -> None:
    if emission.offset:
        life.write(emission.offset, emission.token)
    life.lease_until = now + book.limits.lease_ms
    if emission.ending is not None:
        _must(emission.ending.reason != "JOB_INCOMPLETE", "I2", f"{life} lost a part, and was given up by its holder")
        life.end(str(int(emission.ending.code)), emission.ending.reason)
        life.ender = emission.token


def _check_refused(life: Life, emission: Emission, verdict: Verdict, *, is_dropped: bool) -> None:
    offset, token = emission.offset, emission.token
    by = life.written.get(offset) if offset else life.ender
    _must((by == token) == (verdict is Verdict.DUPLICATE), "I2", f"{life}:{offset} by {by or 'nobody'} is {verdict}")
    holds = life.token == token and not is_dropped
    _must(not (holds and verdict is Verdict.LOST), "I3", f"the holder of {life} was told that it is not")
    is_next = offset in (0, life.last + 1)
    _must(not (is_next and verdict is Verdict.GAP), "I2", f"{life}:{offset} is next, and was said to leave a gap")


def _renew(book: Book, life: Life | None, token: str, verdict: Verdict, now: int) -> None:
    book.counts[f"renew: {verdict}"] += 1
    if life is None or life.token != token:
        _must(verdict is Verdict.LOST, "I4", f"a lost lease of {life} was renewed: {verdict}")
    elif verdict is Verdict.OK:
        _check_holds(book, life, token, now)
        life.lease_until = now + book.limits.lease_ms
    else:
        _must(verdict is Verdict.UNWANTED, "I4", f"the holder of {life} could not renew: {verdict}")
        _check_unwanted(book, life, now)


def _release(book: Book, life: Life | None, token: str, verdict: Verdict) -> None:
    book.counts[f"release: {verdict}"] += 1
    holds = life is not None and life.token == token
    _must(holds == (verdict is Verdict.OK), "I4", f"a release of {life} was answered {verdict}, held: {holds}")
    if life is not None and holds:
        life.release()


def _check_holds(book: Book, life: Life, token: str, now: int) -> None:
    pulse = book.pulses[life.submission.ref.model]
    _must(life.token == token, "I3", f"a lease that does not hold wrote to {life} or was renewed")
    _must(not life.is_late(now), "I5", f"{life} was worked on behind its deadline")
    _must(life.is_wanted(now, pulse), "I5", f"{life} was worked on when nobody wanted it")


def _check_unwanted(book: Book, life: Life, now: int) -> None:
    wanted = life.is_wanted(now, book.pulses[life.submission.ref.model]) and not life.is_late(now)
    _must(not wanted, "I1", f"{life} is wanted, and was said not to be")


# ── reap ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _begin_reap(book: Book, model: ModelVersion, now: int) -> None:
    """Notes whether the server was away. Where the clock ran backwards, no lease lasts longer than one from now."""
    pulse = book.pulses[model]
    book.counts["reap: amnesty" if pulse.was_away(now) else "reap"] += 1
    if pulse.last is not None and now < pulse.last:
        for life in book.unended:
            if life.submission.ref.model == model:
                life.lease_until = min(life.lease_until, now + book.limits.lease_ms)
    pulse.beat(now)
