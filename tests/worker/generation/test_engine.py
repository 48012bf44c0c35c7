"""Continuous batching with a real, if tiny, model."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Code
from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    CompletionDelta,
    GenerateResponse,
    Usage,
)
from services.worker.generation import GenerationEngine
from tests.models import EOS_ID, TinyLlama, tokenizer
from tests.worker.generation.jobs import Ran, fresh_engine, prompt, random_work, request, run, run_one, shared_engine
from tests.worker.steps import leased, step

LONG = prompt(70, seed=8)


@pytest.mark.parametrize("seed", range(6))
def test_sequences_that_join_and_leave_at_random_get_what_they_get_alone(seed: int) -> None:
    dice, engine = random.Random(seed), shared_engine()
    works = [random_work(f"{index}", dice) for index in range(14)]
    alone = {work.job: run_one(engine, work.request).token_ids for work in works}
    together: dict[str, list[int]] = {work.job: [] for work in works}
    doomed, ended = {work.job for work in works if dice.random() < 0.2}, set[str]()
    while len(ended) < len(together):
        while works and engine.capacity().jobs and dice.random() < 0.5:
            engine.add(works.pop())
        for output in step(engine):
            assert isinstance(output.result, GenerateResponse)
            assert output.lease not in ended
            together[output.lease] += output.result.deltas[0].token_ids
            if output.last:
                ended.add(output.lease)
            elif output.lease in doomed and dice.random() < 0.3:
                engine.abort(output.lease)
                ended.add(output.lease)
    for job, token_ids in together.items():
        assert token_ids == alone[job][: len(token_ids)]
        assert job in doomed or len(token_ids) == len(alone[job])


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_size_of_a_chunk_does_not_change_the_tokens(temperature: float) -> None:
    body = request(LONG, max_tokens=20, temperature=temperature, seed=3)
    whole = run_one(shared_engine(TinyLlama(prefill_chunk_tokens=128, step_tokens=128)), body)
    assert run_one(shared_engine(), body).token_ids == whole.token_ids


def test_a_long_prompt_delays_nobody_by_more_than_a_chunk() -> None:
    engine = shared_engine()
    engine.add(leased("first", request("the", max_tokens=30)))
    engine.step()
    engine.add(leased("long", request(LONG, max_tokens=2)))
    jobs = [{output.lease for output in step(engine)} for _ in range(6)]
    assert jobs == [{"first"}] * 4 + [{"first", "long"}] * 2
    engine.abort("first")


def test_short_prompts_share_a_step_within_its_budget() -> None:
    engine = shared_engine()
    for job in ("a", "b", "c", "d"):
        engine.add(leased(job, request(prompt(5), max_tokens=9)))
    assert [len(step(engine)) for _ in range(2)] == [3, 4]
    for job in ("a", "b", "c", "d"):
        engine.abort(job)


@pytest.mark.parametrize("continuation", ["prefill", "replay"])
@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 20},
        {"max_tokens": 20, "temperature": 0.9, "seed": 11, "top_p": 0.9},
        {
            "max_tokens": 30,
            "temperature": 1.5,
            "seed": 12,
            "stop_strings": ["e", "s t", "\ufffd\ufffd\ufffd\ufffd\ufffd"],
        },
        {"max_tokens": 30, "temperature": 1.5, "seed": 13, "stop_strings": ["zzz", "\ufffd\ufffd"], "min_tokens": 12},
        {"max_tokens": 40, "temperature": 1.0, "seed": 14, "ignore_eos": None, "min_tokens": 3},
    ],
)
def test_a_job_goes_on_from_every_prefix_of_its_log_as_if_nothing_had_happened(
    fields: dict[str, object], continuation: str
) -> None:
    engine = shared_engine(continuation=continuation)
    body = request("the stop 🙂 the end", **fields)
    whole = run_one(engine, body)
    for size in range(len(whole.log) + 1):
        rest = run_one(engine, body, whole.log[:size])
        assert rest.failure is None
        assert join(whole.results[:size], rest) == (whole.text, whole.token_ids)
        if size < len(whole.log):
            assert rest.results[-1].usage == whole.results[-1].usage
        assert rest.cost == whole.cost


def join(earlier: Sequence[GenerateResponse], rest: Ran) -> tuple[str, list[int]]:
    joined = Ran(results=(*earlier, *rest.results))
    return joined.text, joined.token_ids


@pytest.mark.parametrize("continuation", ["prefill", "replay"])
def test_a_log_that_lacks_text_which_its_tokens_give_gets_it_once(continuation: str) -> None:
    engine, body = shared_engine(continuation=continuation), request("the stop", max_tokens=12)
    whole = run_one(engine, body)
    late = [GenerateResponse(deltas=[CompletionDelta(token_ids=whole.token_ids[:6])]).SerializeToString()]
    assert run_one(engine, body, late).text == whole.text


@pytest.mark.parametrize("continuation", ["prefill", "replay"])
def test_a_log_that_holds_every_token_but_not_the_end_is_ended_without_running_the_model(continuation: str) -> None:
    engine, body = shared_engine(continuation=continuation), request("the stop", max_tokens=5)
    whole = run_one(engine, body)
    logged = GenerateResponse(deltas=[CompletionDelta(token_ids=whole.token_ids, text=whole.text)])
    rest = run_one(engine, body, [logged.SerializeToString()])
    usage = Usage(prompt_tokens=len(tokenizer().encode("the stop").ids), completion_tokens=5)
    assert rest.results == (
        GenerateResponse(deltas=[CompletionDelta(finish_reason=FINISH_REASON_LENGTH)], usage=usage),
    )


@pytest.mark.parametrize("continuation", ["prefill", "replay"])
def test_a_log_that_holds_the_end_gets_no_further_result(continuation: str) -> None:
    engine, body = shared_engine(continuation=continuation), request("the stop", max_tokens=5)
    rest = run_one(engine, body, run_one(engine, body).log)
    assert (rest.results, rest.failure) == ((), None)


def test_a_log_whose_text_its_tokens_do_not_give_ends_in_data_loss() -> None:
    logged = GenerateResponse(deltas=[CompletionDelta(token_ids=[5], text="other")]).SerializeToString()
    failure = run_one(shared_engine(), request(), [logged]).failure
    assert failure is not None
    assert (failure.code, failure.reason) == (Code.DATA_LOSS, "LOG_MISMATCH")


@given(start=st.integers(0, 20), size=st.integers(1, 9), include=st.booleans(), seed=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_stop_string_ends_the_text_wherever_tokens_cut_it(start: int, size: int, include: bool, seed: int) -> None:
    engine, fields = shared_engine(), {"max_tokens": 24, "temperature": 0.9, "seed": seed}
    free = run_one(engine, request("the stop", **fields))
    stop = free.text[start : start + size]
    stopped = run_one(engine, request("the stop", **fields, stop_strings=[stop], include_stop_string=include))
    end = free.text.find(stop) + (len(stop) if include else 0)
    assert stopped.text == free.text[:end]
    assert stopped.finish_reason == FINISH_REASON_STOP
    assert stopped.results[-1].deltas[0].stop_match == stop
    assert stopped.token_ids == free.token_ids[: len(stopped.token_ids)]


def test_text_held_back_for_a_stop_string_that_never_comes_is_sent_at_the_end() -> None:
    engine, fields = shared_engine(), {"max_tokens": 10, "temperature": 0.9, "seed": 1}
    free = run_one(engine, request("the stop", **fields))
    held = run_one(engine, request("the stop", **fields, stop_strings=[free.text[-3:] + "never"]))
    assert held.text == free.text
    assert held.results[-1].deltas[0].text.endswith(free.text[-3:])


def test_every_piece_of_text_is_valid_on_its_own_and_the_whole_is_the_tokenizers_text() -> None:
    ran = run_one(shared_engine(), request("数据 🙂", max_tokens=60, temperature=2.0, seed=5))
    assert ran.text == tokenizer().decode(ran.token_ids)
    assert all(len(result.deltas) == 1 and len(result.deltas[0].token_ids) == 1 for result in ran.results)


def test_a_row_whose_logits_are_not_numbers_fails_alone_and_leaves_nothing_behind() -> None:
    engine = fresh_engine(TinyLlama(nan_token_id=299))
    healthy = request(prompt(20), max_tokens=12, temperature=0.7, seed=4)
    before = run_one(engine, healthy)
    sick = request([7, 299, 8], max_tokens=12, temperature=0.7)
    ran = run(engine, [leased(str(n), sick if n == 1 else healthy) for n in range(4)])
    assert ran["1"].failure is not None
    assert (ran["1"].failure.code, ran["1"].failure.reason) == (Code.INTERNAL, "NAN_LOGITS")
    assert [ran[job].token_ids for job in "023"] == [before.token_ids] * 3
    assert run_one(engine, healthy).token_ids == before.token_ids


def first_token_as_stop(**fields: object) -> tuple[Ran, int]:
    """A greedy run, and the token it begins with."""
    ran = run_one(shared_engine(), request("the stop", max_tokens=10, **fields))
    return ran, ran.token_ids[0]


def test_a_stop_token_ends_the_completion_and_has_no_text() -> None:
    free, first = first_token_as_stop()
    ran = run_one(shared_engine(), request("the stop", max_tokens=10, stop_token_ids=[first]))
    assert (ran.token_ids, ran.text, ran.finish_reason) == ([first], "", FINISH_REASON_STOP)
    assert ran.results[-1].usage == Usage(prompt_tokens=free.results[-1].usage.prompt_tokens, completion_tokens=1)


def test_until_min_tokens_no_stop_token_is_drawn() -> None:
    _, first = first_token_as_stop()
    ran = run_one(shared_engine(), request("the stop", max_tokens=10, stop_token_ids=[first], min_tokens=4))
    assert len(ran.token_ids) >= 4
    assert first not in ran.token_ids[:4]


def test_a_stop_string_that_completes_before_min_tokens_is_text() -> None:
    free, _ = first_token_as_stop()
    stop = free.results[0].deltas[0].text
    ran = run_one(shared_engine(), request("the stop", max_tokens=10, stop_strings=[stop], min_tokens=4))
    assert stop
    assert ran.text.startswith(stop)
    assert len(ran.token_ids) >= 4


def test_the_end_of_sequence_ends_a_completion_unless_it_is_ignored() -> None:
    ended = [
        run_one(shared_engine(), request("the", max_tokens=100, ignore_eos=None, temperature=1.5, seed=seed))
        for seed in range(12)
    ]
    stopped = [ran for ran in ended if ran.finish_reason == FINISH_REASON_STOP]
    assert stopped
    assert all(ran.token_ids[-1] == EOS_ID and EOS_ID not in ran.token_ids[:-1] for ran in stopped)
    seed = ended.index(stopped[0])
    ignoring = run_one(shared_engine(), request("the", max_tokens=100, temperature=1.5, seed=seed))
    assert ignoring.finish_reason == FINISH_REASON_LENGTH
    assert ignoring.token_ids[: len(stopped[0].token_ids)] == stopped[0].token_ids


def test_a_completion_ends_with_the_context() -> None:
    ran = run_one(shared_engine(), request(prompt(120), max_tokens=100))
    assert (len(ran.token_ids), ran.finish_reason) == (8, FINISH_REASON_LENGTH)
    assert len(run_one(shared_engine(), request(prompt(127))).token_ids) == 1


def test_unset_fields_take_the_models_defaults() -> None:
    body = request("the stop", temperature=None, max_tokens=None, seed=6)
    ran = run_one(shared_engine(), body)
    stated = request("the stop", temperature=0.8, top_p=0.95, max_tokens=16, seed=6)
    assert len(ran.token_ids) == 16
    assert ran.token_ids == run_one(shared_engine(), stated).token_ids
    assert ran.results[-1].usage.seed == 6


def test_the_cost_is_the_tokens_of_prompt_and_completion_so_far() -> None:
    engine = shared_engine()
    engine.add(leased("a", request(prompt(5), max_tokens=3)))
    assert [step(engine)[0].cost for _ in range(3)] == [6, 7, 8]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_an_aborted_job_frees_its_slot_at_once_and_says_nothing_more(steps: int) -> None:
    engine = shared_engine()
    engine.add(leased("a", request(prompt(20), max_tokens=50)))
    for _ in range(steps):
        engine.step()
    assert engine.capacity().jobs == 3
    engine.abort("a")
    engine.abort("unknown")
    assert engine.capacity().jobs == 4
    assert engine.step() is None


def test_a_failure_that_waits_for_its_step_can_be_aborted() -> None:
    engine = shared_engine()
    engine.add(leased("a", request(prompt(200))))
    engine.abort("a")
    assert engine.step() is None


def test_a_job_that_is_taken_again_goes_on_under_its_new_lease() -> None:
    engine, body = shared_engine(), request(prompt(20), max_tokens=9)
    whole = run_one(engine, body)
    engine.add(leased("lost", body))
    engine.step()
    engine.abort("lost")
    assert run_one(engine, body, whole.log[:4]).token_ids == whole.token_ids[4:]


def test_jobs_beyond_the_slots_wait_for_one() -> None:
    engine, body = shared_engine(), request("the stop", max_tokens=6)
    ran = run(engine, [leased(str(n), body) for n in range(11)])
    assert len({tuple(one.token_ids) for one in ran.values()}) == 1


INVALID = [
    (request(prompt(128)), "PROMPT_TOO_LONG", "tokens.ids"),
    (request("the stop " * 500), "PROMPT_TOO_LONG", "text"),
    (request("x" * 100_000), "PROMPT_TOO_LONG", "text"),
    (request([5, 320]), "INVALID_REQUEST", "tokens.ids"),
    (request(stop_token_ids=[320]), "INVALID_REQUEST", "stopping.stop_token_ids"),
    (request(max_tokens=0), "INVALID_REQUEST", "stopping.max_tokens"),
    (b"\xff", "INVALID_REQUEST", ""),
]


@pytest.mark.parametrize(("body", "reason", "field"), INVALID)
def test_a_bad_request_fails_alone_and_says_which_field_is_to_blame(body: bytes, reason: str, field: str) -> None:
    good = request("the stop", max_tokens=4)
    ran = run(shared_engine(), [leased("bad", body), leased("good", good)])
    failure = ran["bad"].failure
    assert failure is not None
    assert (failure.code, failure.reason, failure.field) == (Code.INVALID_ARGUMENT, reason, field)
    assert len(ran["good"].token_ids) == 4


def test_a_prompt_that_is_too_long_is_told_both_numbers() -> None:
    failure = run_one(shared_engine(), request(prompt(200))).failure
    assert failure is not None
    assert "200 tokens" in failure.message
    assert "at most 127" in failure.message


def test_an_empty_prompt_begins_with_the_models_first_token_where_it_has_one() -> None:
    assert run_one(shared_engine(), request("")).token_ids == run_one(shared_engine(), request([EOS_ID])).token_ids
    failure = run_one(shared_engine(TinyLlama(bos_token_id=None)), request("")).failure
    assert failure is not None
    assert (failure.code, failure.reason, failure.field) == (Code.INVALID_ARGUMENT, "PROMPT_EMPTY", "text")


def test_an_error_of_the_runtime_leaves_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fresh_engine()

    def broken(*_: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(engine._decoder, "run", broken)
    engine.add(leased("a", request()))
    with pytest.raises(RuntimeError, match="device lost"):
        engine.step()


def test_an_engine_states_what_its_sequences_take_up() -> None:
    engine: GenerationEngine = shared_engine()
    assert engine.memory_bytes == 4 * ((4 + 1) * 2 * 128 * 16 * 4) + (4 + 16) * 320 * 4


def test_a_slot_is_in_use_while_it_holds_a_sequence() -> None:
    engine = fresh_engine()
    for lease in ("a", "b"):
        engine.add(leased(lease, request(prompt(5), max_tokens=3)))
    step(engine)
    told = engine.gauges()
    assert (told["kv_blocks_used"], told["kv_blocks"]) == (2, engine.config.slots)
    assert told["kv_cache_usage"] == 2 / engine.config.slots
    while engine.step() is not None:
        pass
    assert engine.gauges()["kv_blocks_used"] == 0
