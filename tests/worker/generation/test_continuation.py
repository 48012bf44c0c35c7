"""A job that another worker has begun: replayed, it is what it would have been; prefilled, it is as good."""

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.engine import Work
from millrace.v1.generation_pb2 import GenerateResponse
from services.worker import repository
from services.worker.generation import GenerationEngine
from services.worker.repository import Model
from tests.models import TinyLlama, write_model
from tests.worker.generation.jobs import (
    Ran,
    fresh_engine,
    prompt,
    random_work,
    request,
    run_one,
    shared_engine,
    tiny_model,
)
from tests.worker.generation.twins import write_twins
from tests.worker.generation.watched import WatchedEngine, watched
from tests.worker.steps import leased, step

JOBS, TWIN_TOKENS = 9, 40
CLOSE = 1e-4

Caches = dict[tuple[str, int], bytes]
"""By job and positions filled."""


def drive(engine: WatchedEngine, works: Iterable[Work], dice: random.Random) -> tuple[dict[str, Ran], Caches]:
    """Adds jobs at random moments and steps until all have ended; answers what became of them, and the cache of each
    behind each of its tokens."""
    waiting, caches = list(works), Caches()
    results: dict[str, list[GenerateResponse]] = {work.job: [] for work in waiting}
    running = set(results)
    while running:
        while waiting and engine.capacity().jobs and dice.random() < 0.4:
            engine.add(waiting.pop())
        for output in step(engine):
            if isinstance(output.result, GenerateResponse):
                results[output.lease].append(output.result)
            if output.last:
                running.remove(output.lease)
            else:
                filled, cache = engine.cache(output.lease)
                caches[output.lease, filled] = cache
    return {job: Ran(results=tuple(told)) for job, told in results.items()}, caches


def cut(work: Work, ran: Ran, dice: random.Random) -> Work:
    """The same job on another worker, from anywhere in its log."""
    return replace(work, results=ran.log[: dice.randint(0, len(ran.log))])


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_replayed_job_has_the_text_the_cache_and_the_logits_that_it_had_bit_for_bit(seed: int) -> None:
    dice = random.Random(seed)
    works = [random_work(str(index), dice) for index in range(JOBS)]
    first, second = watched(tiny_model()), watched(tiny_model(), continuation="replay")
    whole, caches = drive(first, works, dice)
    continued = [cut(work, whole[work.job], dice) for work in works]
    rest, caches_again = drive(second, continued, dice)
    for work in continued:
        before, after = whole[work.job], rest[work.job]
        assert before.results[: len(work.results)] + after.results == before.results
    assert all(cache == caches[place] for place, cache in caches_again.items())
    assert all((draw.logits == first.draws[place].logits).all() for place, draw in second.draws.items())
    went_on = {job for job, ran in rest.items() if ran.results}
    assert {place for place in first.draws if place[0] in went_on} == second.draws.keys()


def told(engine: GenerationEngine) -> dict[str, list[int]]:
    """Steps until nothing is left to run; the tokens of each job."""
    token_ids: dict[str, list[int]] = {}
    while (outputs := engine.step()) is not None:
        for output in outputs:
            assert isinstance(output.result, GenerateResponse)
            token_ids.setdefault(output.lease, []).extend(output.result.deltas[0].token_ids)
    return token_ids


def twins(folder: Path) -> Model:
    write_twins(folder, "twins", TinyLlama())
    models, broken = repository.scan(folder)
    assert not broken
    return models[0]


def split_texts(engine: WatchedEngine, body: bytes, whole: Ran) -> list[Ran]:
    """The job continued from each prefix of its log, all of its results together."""
    return [
        Ran(results=(*whole.results[:size], *run_one(engine, body, whole.log[:size]).results))
        for size in range(1, TWIN_TOKENS)
    ]


def test_between_twins_a_prefilled_continuation_may_choose_the_other_and_a_replayed_one_does_not(
    tmp_path: Path,
) -> None:
    model, body = twins(tmp_path), request("the stop", max_tokens=TWIN_TOKENS)
    prefilling, replaying = watched(model), watched(model, continuation="replay")
    whole = run_one(prefilling, body)
    assert all(ran.token_ids == whole.token_ids for ran in split_texts(replaying, body, whole))
    others = [ran for ran in split_texts(prefilling, body, whole) if ran.token_ids != whole.token_ids]
    assert others


def test_what_a_prefilled_continuation_says_is_the_best_of_logits_as_close_as_rounding(tmp_path: Path) -> None:
    model, body = twins(tmp_path), request("the stop", max_tokens=TWIN_TOKENS)
    calm, engine = watched(model), watched(model)
    whole = run_one(calm, body)
    for size in range(1, TWIN_TOKENS):
        rest = run_one(engine, body, whole.log[:size]).token_ids
        assert rest == [engine.draws["only", place].logits.argmax() for place in range(size, TWIN_TOKENS)]
        for place, token_id in enumerate(rest, size):
            there, here = (one.draws["only", place].logits for one in (calm, engine))
            assert here == pytest.approx(there, abs=CLOSE)
            if token_id != whole.token_ids[place]:
                break


def test_while_a_job_replays_it_says_nothing_and_the_others_go_on() -> None:
    engine, body = shared_engine(continuation="replay"), request(prompt(20), max_tokens=12)
    log = run_one(engine, body).log
    engine.add(leased("other", request("the", max_tokens=40)))
    step(engine)
    engine.add(leased("continued", body, results=log[:9]))
    jobs = [{output.lease for output in step(engine)} for _ in range(14)]
    assert jobs == [{"other"}] * (1 + 9) + [{"other", "continued"}] * 3 + [{"other"}]
    engine.abort("other")


def test_a_worker_with_nothing_but_a_replay_says_that_it_is_not_idle() -> None:
    engine, body = shared_engine(continuation="replay"), request("the stop", max_tokens=8)
    log = run_one(engine, body).log
    engine.add(leased("continued", body, results=log[:7]))
    assert [engine.step() for _ in range(7)] == [[]] * 7
    assert [output.last for output in step(engine)] == [True]
    assert engine.step() is None


def test_a_replay_costs_what_the_job_had_cost() -> None:
    engine, body = shared_engine(continuation="replay"), request(prompt(5), max_tokens=8)
    log = run_one(engine, body).log
    engine.add(leased("continued", body, results=log[:6]))
    outputs = [output for _ in range(8) for output in step(engine)]
    assert [output.cost for output in outputs] == [5 + 7, 5 + 8]


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("doomed", ["replaying", "beside"])
def test_a_job_that_is_aborted_while_others_replay_takes_nothing_from_them(steps: int, doomed: str) -> None:
    engine = shared_engine(continuation="replay")
    body = request(prompt(10), max_tokens=20, temperature=0.9, seed=5)
    whole = run_one(engine, body)
    works = {
        "beside": leased("beside", request(prompt(9), max_tokens=30)),
        "replaying": leased("replaying", body, results=whole.log[:11]),
        "too": leased("too", body, results=whole.log[:15]),
    }
    for work in works.values():
        engine.add(work)
    for _ in range(steps):
        step(engine)
    engine.abort(doomed)
    rest = told(engine)
    assert rest["too"] == whole.token_ids[15:]
    assert rest.get("replaying") == (None if doomed == "replaying" else whole.token_ids[11:])
    assert doomed not in rest
    assert engine.capacity().jobs == 4


def test_a_job_that_is_taken_again_while_it_replays_begins_its_replay_anew() -> None:
    engine, body = shared_engine(continuation="replay"), request(prompt(20), max_tokens=12)
    whole = run_one(engine, body)
    engine.add(leased("lost", body, results=whole.log[:8]))
    for _ in range(5):
        step(engine)
    engine.abort("lost")
    assert run_one(engine, body, whole.log[:8]).token_ids == whole.token_ids[8:]


def test_a_replaying_job_that_changes_its_slot_takes_along_what_it_has() -> None:
    engine, body = watched(tiny_model(), continuation="replay"), request(prompt(10), max_tokens=20)
    whole = run_one(engine, body)
    engine.add(leased("short", request(prompt(3), max_tokens=4)))
    engine.add(leased("moving", body, results=whole.log[:15]))
    step(engine)
    before = engine.slot("moving")
    for _ in range(4):
        step(engine)
    assert (before, engine.slot("moving")) == (1, 0)
    assert told(engine) == {"moving": whole.token_ids[15:]}


@pytest.mark.parametrize("value", ["again", "", True, None])
def test_a_continuation_of_another_name_is_reported_with_those_that_there_are(tmp_path: Path, value: object) -> None:
    write_model(tmp_path, continuation=value)
    models, broken = repository.scan(tmp_path)
    assert not models
    assert "continuation: Input should be 'prefill' or 'replay'" in broken[0].reason


def test_unless_its_file_says_otherwise_a_model_prefills_what_is_continued() -> None:
    assert not fresh_engine().config.replays
    assert fresh_engine(continuation="replay").config.replays
