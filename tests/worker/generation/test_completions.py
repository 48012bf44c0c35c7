"""Several completions of one prompt."""

import random
from collections.abc import Sequence

import pytest

from millrace.v1.generation_pb2 import FINISH_REASON_LENGTH, GenerateResponse
from tests.models import TinyLlama
from tests.worker.generation.jobs import Ran, fresh_engine, prompt, random_work, request, run, run_one, shared_engine
from tests.worker.steps import leased, step

PROMPT = prompt(45, seed=3)
DRAWN = {"max_tokens": 14, "temperature": 1.2, "seed": 21}


def texts(ran: Ran, count: int) -> list[list[int]]:
    return [ran.tokens_of(index) for index in range(count)]


def test_each_completion_draws_for_itself_and_the_first_as_one_that_is_alone() -> None:
    ran = run_one(shared_engine(), request(PROMPT, num_completions=4, **DRAWN))
    alone = run_one(shared_engine(), request(PROMPT, **DRAWN))
    found = texts(ran, 4)
    assert found[0] == alone.token_ids
    assert len({tuple(tokens) for tokens in found}) == 4
    assert texts(run_one(shared_engine(), request(PROMPT, num_completions=4, **DRAWN)), 4) == found


def test_greedy_completions_are_all_the_same_and_share_one_prefill() -> None:
    engine = fresh_engine()
    before = engine.counters()["steps"]
    ran = run_one(engine, request(PROMPT, num_completions=4, max_tokens=10))
    alone = run_one(engine, request(PROMPT, max_tokens=10))
    assert texts(ran, 4) == [alone.token_ids] * 4
    prefill, decode, late = 3, 9, 1
    assert engine.counters()["steps"] - before <= (prefill + decode + late) + (prefill + decode)


def test_the_usage_counts_the_prompt_once_and_comes_with_the_last_of_them() -> None:
    ran = run_one(shared_engine(), request(PROMPT, num_completions=3, **DRAWN))
    usage = ran.results[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.seed) == (45, 3 * 14, 21)
    assert not any(result.HasField("usage") for result in ran.results[:-1])
    assert ran.cost == 45 + 3 * 14


def test_a_completion_that_ends_early_frees_its_row_and_the_others_go_on() -> None:
    engine = shared_engine()
    fields = {"max_tokens": 40, "temperature": 1.5, "seed": 4, "stop_strings": ["e"]}
    engine.add(leased("a", request(PROMPT, num_completions=4, **fields)))
    assert engine.capacity().jobs == 0
    lengths, free = [0] * 4, []
    last = False
    while not last:
        for output in step(engine):
            assert isinstance(output.result, GenerateResponse)
            last = output.last
            for delta in output.result.deltas:
                lengths[delta.index] += len(delta.token_ids)
        free.append(engine.capacity().jobs)
    assert len(set(lengths)) > 1
    assert free == sorted(free)
    assert set(free) > {0, 4}


@pytest.mark.parametrize("continuation", ["prefill", "replay"])
def test_they_go_on_from_every_prefix_of_their_log(continuation: str) -> None:
    engine = shared_engine(continuation=continuation)
    fields = {"max_tokens": 12, "temperature": 1.5, "seed": 4, "stop_strings": ["e"]}
    body = request(PROMPT, num_completions=4, **fields)
    whole = run_one(engine, body)
    assert len({len(tokens) for tokens in texts(whole, 4)}) > 1
    for size in range(len(whole.log) + 1):
        rest = run_one(engine, body, whole.log[:size])
        joined = Ran(results=(*whole.results[:size], *rest.results))
        assert texts(joined, 4) == texts(whole, 4)
        assert [joined.text_of(index) for index in range(4)] == [whole.text_of(index) for index in range(4)]
        assert rest.cost == whole.cost
        if rest.results:
            assert rest.results[-1].usage == whole.results[-1].usage


def test_more_completions_than_rows_come_one_after_the_other() -> None:
    engine = shared_engine()
    ran = run_one(engine, request(PROMPT, num_completions=9, max_tokens=5))
    alone = run_one(engine, request(PROMPT, max_tokens=5))
    assert texts(ran, 9) == [alone.token_ids] * 9
    assert all(ran.deltas_of(index)[-1].finish_reason == FINISH_REASON_LENGTH for index in range(9))


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 6])
def test_an_aborted_job_frees_all_its_rows(steps: int) -> None:
    engine = shared_engine()
    beside = request(prompt(9), max_tokens=20)
    alone = run_one(engine, beside)
    engine.add(leased("many", request(PROMPT, num_completions=3, max_tokens=30)))
    engine.add(leased("beside", beside))
    told: list[int] = []
    for _ in range(steps):
        told += tokens(step(engine), "beside")
    engine.abort("many")
    assert engine.capacity().jobs == 3
    while engine.capacity().jobs < 4:
        told += tokens(step(engine), "beside")
    assert told == alone.token_ids


def tokens(outputs: Sequence[object], lease: str) -> list[int]:
    return [
        token_id
        for output in outputs
        if getattr(output, "lease", "") == lease
        for delta in output.result.deltas  # type: ignore[attr-defined]
        for token_id in delta.token_ids
    ]


@pytest.mark.parametrize("seed", range(4))
def test_jobs_with_many_completions_and_few_change_nothing_for_each_other(seed: int) -> None:
    dice, engine = random.Random(seed), shared_engine(TinyLlama(slots=6))
    works = [random_work(f"one{index}", dice) for index in range(6)]
    for index in range(4):
        fields = {"max_tokens": dice.randint(1, 12), "temperature": 1.1, "seed": dice.getrandbits(64)}
        body = request(prompt(dice.randint(1, 60), index), num_completions=dice.randint(2, 5), **fields)
        works.append(leased(f"many{index}", body))
    dice.shuffle(works)
    alone = {work.job: texts(run_one(engine, work.request), 5) for work in works}
    together = run(engine, works)
    assert {job: texts(ran, 5) for job, ran in together.items()} == alone


def test_a_row_that_is_not_a_number_fails_all_of_its_job_and_nothing_else() -> None:
    engine = fresh_engine(TinyLlama(nan_token_id=299))
    healthy = request(prompt(20), max_tokens=12)
    before = run_one(engine, healthy)
    ran = run(engine, [leased("sick", request([7, 299, 8], num_completions=3)), leased("well", healthy)])
    assert ran["sick"].failure is not None
    assert ran["sick"].failure.reason == "NAN_LOGITS"
    assert ran["well"].token_ids == before.token_ids
