"""What is checked when a schedule is over: every log, every transcript against its log, every key."""

from collections.abc import Iterable, Sequence

from millrace.errors import Code
from millrace.queue.queue import CLAIM_MS
from millrace.queue.types import End, Result
from millrace.v1.generation_pb2 import GenerateResponse
from services.worker.stub import stub_token
from tests.checker.check import check
from tests.checker.history import JobHistory, Received
from tests.queue import truth
from tests.queue.probe import Key
from tests.simulation.book import Book
from tests.simulation.caller import Caller
from tests.simulation.life import Life
from tests.simulation.promise import Broken


def check_logs(lives: Iterable[Life]) -> None:
    """Each log by itself, and against what was accepted (I1, I2, I3). Every life has its log."""
    for life in lives:
        log = life.log or []
        results = [entry for entry in log if isinstance(entry, Result)]
        ends = [entry for entry in log if isinstance(entry, End)]
        _raise(check([_history(life, [], None)], truth=stub_token))
        if [entry.offset for entry in results] != sorted(life.written):
            raise Broken("I2", f"{life}: the log holds {len(results)} results, and {len(life.written)} were accepted")
        found = [(str(int(end.ending.code)), end.ending.reason) for end in ends]
        if found != [life.ending]:
            raise Broken("I1", f"{life}: the log's ends are {found}, expected {life.ending}")


def check_transcript(caller: Caller, lives: Sequence[Life]) -> None:
    """What a caller received is what its job's log holds: all of it where the caller saw the end (I2, I7)."""
    if not caller.transcript.received and caller.ending is None:
        return
    mine = [life for life in lives if life.submission.fingerprint == caller.plan.fingerprint]
    if not mine:
        raise Broken("I7", f"{caller.name} received results, and its request was never accepted")
    code = caller.ending.code if caller.ending is not None else None
    found = [check([_history(life, caller.transcript.received, code)], truth=stub_token) for life in mine]
    if all(found):
        _raise(found[-1])


def check_keys(book: Book, keys: dict[str, Key], now: int) -> None:
    """The keys agree with each other, at any moment."""
    for model, pulse in book.pulses.items():
        others = tuple(base for base in book.models if base != model.base)
        own = {name: key for name, key in keys.items() if not name.startswith(others)}
        was_away = pulse.was_away(now) or pulse.slip_ms > 0
        wrong = truth.differences(model, _without_uploads(own, now), now, was_away=was_away)
        if wrong:
            raise Broken("I9", f"the keys disagree: {wrong[0]}")


def _without_uploads(keys: dict[str, Key], now: int) -> dict[str, Key]:
    """A large payload is there for some seconds before its job; it may come late, and be of no use."""
    uploaded_until = now + 2 * CLAIM_MS
    return {
        name: key for name, key in keys.items() if not (":payload:" in name and 0 <= key.expire_ms <= uploaded_until)
    }


def check_nothing_left(keys: dict[str, Key]) -> None:
    """Everything has ended and expired (I9)."""
    left = truth.leaked(keys)
    if left:
        raise Broken("I9", f"keys are left: {' '.join(sorted(left))}")


def _history(life: Life, received: list[Received], code: Code | None) -> JobHistory:
    """A caller that left is taken to have received the rest: what it has must then be the log's beginning."""
    log = life.log or []
    if code is None:
        seen = received[-1].message.offset if received else 0
        received = [*received, *_received(entry for entry in log if isinstance(entry, Result) and entry.offset > seen)]
        ends = [entry for entry in log if isinstance(entry, End)]
        code = ends[-1].ending.code if ends else None
    return JobHistory(job=str(life), received=received, code=code, log=log)


def _received(results: Iterable[Result]) -> list[Received]:
    return [Received(message=GenerateResponse.FromString(entry.body or b""), at=0.0) for entry in results]


def _raise(differences: Sequence[object]) -> None:
    if differences:
        raise Broken("I2", str(differences[0]))
