"""The checker sees: each planted fault is named, and a good history is not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from millrace.errors import Code
from millrace.queue import End, Ending, Entry, Result, Seal
from millrace.queue import history as running
from millrace.v1.generation_pb2 import CompletionDelta, GenerateResponse
from services.worker.results import HISTORY_TAG
from services.worker.stub import stub_token
from tests.checker.check import check, leaked
from tests.checker.history import JobHistory, Received

JOB = "default:j"


def results(tokens: list[int]) -> list[Result]:
    history, made = running.EMPTY, []
    for offset, token in enumerate(tokens, 1):
        delta = CompletionDelta(text=f"{token} ", token_ids=[token])
        body = GenerateResponse(job_id="j", offset=offset, deltas=[delta]).SerializeToString()
        history = running.extend(history, body)
        made.append(Result(offset=offset, history=history, body=body + HISTORY_TAG + history))
    return made


def tokens_of(epochs: list[int]) -> list[int]:
    tokens: list[int] = []
    for position, epoch in enumerate(epochs):
        tokens.append(stub_token(JOB, position, tokens[-1] if tokens else 0, epoch))
    return tokens


def good(tokens: list[int] | None = None) -> JobHistory:
    """Six results; the job changes its worker behind the third."""
    made = results(tokens or tokens_of([1, 1, 1, 2, 2, 2]))
    log: list[Entry] = [Seal(last_offset=0, epoch=1, holder="w1"), *made[:3]]
    log += [Seal(last_offset=3, epoch=2, holder="w2"), *made[3:], End(last_offset=6, ending=Ending())]
    received = [
        Received(message=GenerateResponse.FromString(result.body or b""), at=0.1 * result.offset) for result in made
    ]
    return JobHistory(job=JOB, received=received, code=Code.OK, log=log)


def swap(history: JobHistory) -> JobHistory:
    received = list(history.received)
    received[1], received[2] = received[2], received[1]
    return replace(history, received=received)


def other_text(history: JobHistory) -> JobHistory:
    received = list(history.received)
    received[2].message.deltas[0].text = "other"
    return replace(history, received=received)


def late(history: JobHistory) -> JobHistory:
    received = [replace(item, at=item.at + 9 * (item.message.offset > 3)) for item in history.received]
    return replace(history, received=received)


def with_log(change: Callable[[list[Entry]], object]) -> Callable[[JobHistory], JobHistory]:
    def plant(history: JobHistory) -> JobHistory:
        log = list(history.log)
        change(log)
        return replace(history, log=log)

    return plant


def never_logged(history: JobHistory) -> JobHistory:
    return replace(history, log=[*history.log[:4], End(last_offset=3, ending=Ending())])


def cancelled(*late: Entry) -> JobHistory:
    """The caller leaves behind the fourth result, and the job ends as it should; then comes what came too late."""
    history = good()
    log = [*history.log[:-2], End(last_offset=5, ending=Ending(code=Code.CANCELLED))]
    received = history.received[:4]
    return replace(history, received=received, code=None, log=[*log, *late], settled=len(log))


FAULTS: dict[str, tuple[str, Callable[[JobHistory], JobHistory]]] = {
    "a message is lost": ("lost result", lambda h: replace(h, received=[*h.received[:2], *h.received[3:]])),
    "the last message is lost": ("lost result", lambda h: replace(h, received=h.received[:-1])),
    "a message comes twice": ("repeated result", lambda h: replace(h, received=[*h.received[:3], *h.received[2:]])),
    "two messages are swapped": ("reordered result", swap),
    "a message has other text": ("result that is not the log's", other_text),
    "a message was never logged": ("result that is not in the log", never_logged),
    "a result is missing in the log": ("gap in the log", with_log(lambda log: log.pop(2))),
    "the end comes too early": ("gap in the log", with_log(lambda log: log.pop(-2))),
    "a result was rewritten": ("history", with_log(lambda log: log.__setitem__(2, results([7, 8])[1]))),
    "an old lease seals": (
        "seal out of order",
        with_log(lambda log: log.insert(6, Seal(last_offset=4, epoch=1, holder="w1"))),
    ),
    "a zombie writes": ("zombie result", lambda h: good(tokens_of([1, 1, 1, 1, 2, 2]))),
    "a worker begins anew": (
        "restart from zero",
        lambda h: good([*tokens_of([1, 1, 1]), *tokens_of([2, 2, 2])]),
    ),
    "a token is invented": ("wrong token", lambda h: good([*tokens_of([1, 1, 1]), 5, 6, 7])),
    "there is no end": ("no end", with_log(lambda log: log.pop())),
    "there are two ends": ("two ends", with_log(lambda log: log.append(log[-1]))),
    "work goes on after the end": (
        "work after the end",
        with_log(lambda log: log.append(Seal(last_offset=6, epoch=3, holder="w3"))),
    ),
    "the call hangs": ("call without an end", lambda h: replace(h, code=None)),
    "the call ends otherwise": ("other ending", lambda h: replace(h, code=Code.CANCELLED)),
    "a stream stalls": ("stall", late),
    "a cancelled job is worked on": ("work after the cancel", lambda h: cancelled(results([1, 2, 3, 4, 5, 6])[-1])),
    "a cancelled job is taken": (
        "work after the cancel",
        lambda h: cancelled(Seal(last_offset=5, epoch=3, holder="w")),
    ),
    "a cancelled job ends late": (
        "work after the cancel",
        lambda h: replace(cancelled(), settled=len(cancelled().log) - 1),
    ),
    "a cancelled job never ends": ("no end", lambda h: replace(cancelled(), log=cancelled().log[:-1])),
    "a cancelled job's caller saw what is not there": (
        "result that is not in the log",
        lambda h: replace(cancelled(), received=h.received),
    ),
}


def test_a_good_history_has_no_difference() -> None:
    assert check([good()], truth=stub_token, stall_s=0.2) == []


def test_a_good_history_of_a_cancelled_job_has_no_difference() -> None:
    assert check([cancelled()], truth=stub_token) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str) -> None:
    kind, plant = FAULTS[fault]
    history = plant(good())
    (difference,) = check([history], truth=stub_token, stall_s=0.2)
    assert (difference.job, difference.kind) == (JOB, kind)


def test_a_real_models_tokens_need_no_truth() -> None:
    assert check([good([5, 6, 7, 8, 9, 10])]) == []


def test_keys_of_jobs_are_told_from_those_that_may_stay() -> None:
    may_stay = ["mr:workers", "mr:models", "mr:{m/1}:load", "mr:{m/1}:pulse", "mr:{m/1}:rest:20", "mr:{m/1}:take:w"]
    of_jobs = ["mr:job-index:default:j", "mr:{m/1}:results:default:j", "mr:{m/1}:waiting:20:default", "mr:{m/1}:due"]
    assert leaked([*may_stay, *of_jobs]) == sorted(of_jobs)
