"""Output formats, chat and cancels through the whole engine."""

import json
import re
import time

import pytest

from millrace.errors import Code
from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Conversation,
    GenerateRequest,
    OutputFormat,
)
from services.worker.generation.text.grammar import GrammarOverrun, Grammars
from tests.models import EOS_ID, tokenizer
from tests.worker.generation.jobs import Ran, fresh_engine, prompt, request, run, run_one, shared_engine
from tests.worker.steps import leased, step

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"enum": ["ada", "bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)
HOT = {"max_tokens": 100, "temperature": 1.5}
TIGHT = {token_id: -50.0 for text in " \t\r\n" for token_id in tokenizer().encode(text).ids}
"""A bias against white space, of which a model with random weights writes no end."""


@pytest.mark.parametrize("seed", range(6))
def test_a_text_under_a_schema_is_json_that_the_schema_allows(seed: int) -> None:
    ran = run_one(shared_engine(), request("the", json_schema=SCHEMA, seed=seed, logit_bias=TIGHT, **HOT))
    found = json.loads(ran.text)
    assert found["name"] in ("ada", "bob")
    assert 0 <= found["age"] <= 99
    assert set(found) == {"name", "age"}
    assert ran.finish_reason == FINISH_REASON_STOP


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_text_under_an_expression_matches_all_of_it(temperature: float) -> None:
    for seed in range(5):
        fields = {"max_tokens": 100, "temperature": temperature, "seed": seed}
        ran = run_one(shared_engine(), request("the", regex="[a-f]{2,9}🙂?x", **fields))
        assert re.fullmatch("[a-f]{2,9}🙂?x", ran.text)
        assert ran.finish_reason == FINISH_REASON_STOP


def test_a_text_under_choices_is_one_of_them_and_ends_without_an_end_token() -> None:
    choices = OutputFormat.Choices(texts=["yes", "no", "perhaps"])
    ran = run_one(shared_engine(), request("the", choices=choices, **HOT))
    assert ran.text in ("yes", "no", "perhaps")
    assert EOS_ID not in ran.token_ids


def test_a_grammar_in_larks_notation_constrains_the_text() -> None:
    ran = run_one(shared_engine(), request("the", grammar='start: "(" start ")" | "x"', **HOT))
    assert re.fullmatch(r"(\(*)x(\)*)", ran.text)
    assert ran.text.count("(") == ran.text.count(")")


def test_completions_of_one_job_are_constrained_each_by_itself() -> None:
    ran = run_one(shared_engine(), request("the", regex="[a-z]{5}", num_completions=4, seed=3, **HOT))
    texts = [ran.text_of(index) for index in range(4)]
    assert all(re.fullmatch("[a-z]{5}", text) for text in texts)
    assert len(set(texts)) > 1


@pytest.mark.parametrize("continuation", ["prefill", "replay"])
def test_a_constrained_job_goes_on_from_every_prefix_of_its_log(continuation: str) -> None:
    engine = shared_engine(continuation=continuation)
    body = request("the", json_schema=SCHEMA, seed=5, num_completions=2, logprobs=1, presence_penalty=0.3, **HOT)
    whole = run_one(engine, body)
    for size in range(len(whole.log) + 1):
        rest = run_one(engine, body, whole.log[:size])
        joined = Ran(results=(*whole.results[:size], *rest.results))
        assert [joined.text_of(index) for index in range(2)] == [whole.text_of(index) for index in range(2)]


def test_a_log_that_the_format_does_not_allow_ends_in_data_loss() -> None:
    body = request("the", regex="[0-9]{8}", **HOT)
    free = run_one(shared_engine(), request("the", regex="[a-f]{8}", **HOT))
    failure = run_one(shared_engine(), body, free.log[:3]).failure
    assert failure is not None
    assert failure.reason == "LOG_MISMATCH"


def test_min_tokens_and_ignore_eos_do_not_break_a_format() -> None:
    ran = run_one(shared_engine(), request("the", regex="[ab]{3}", min_tokens=50, max_tokens=60))
    assert re.fullmatch("[ab]{3}", ran.text)


def test_a_format_that_may_go_on_ends_with_the_limit_or_where_the_model_ends_it() -> None:
    ends = {
        run_one(shared_engine(), request("the", regex="[a-f]*", seed=seed, max_tokens=8, temperature=2.0)).finish_reason
        for seed in range(30)
    }
    assert ends == {FINISH_REASON_LENGTH, FINISH_REASON_STOP}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"regex": "["}, "output_format.regex"),
        ({"json_schema": "{"}, "output_format.json_schema"),
        ({"grammar": "start: nothing"}, "output_format.grammar"),
    ],
)
def test_a_format_that_makes_no_sense_fails_alone_and_says_why(given: dict[str, str], field: str) -> None:
    ran = run(shared_engine(), [leased("bad", request(**given)), leased("good", request(max_tokens=3))])
    failure = ran["bad"].failure
    assert failure is not None
    assert (failure.code, failure.reason, failure.field) == (Code.INVALID_ARGUMENT, "OUTPUT_FORMAT", field)
    assert len(failure.message) > 10
    assert len(ran["good"].token_ids) == 3


def test_a_format_that_cannot_go_on_fails_its_job_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fresh_engine()
    engine.add(leased("strict", request("the", regex="[ab]{60}", max_tokens=50)))
    while "strict" not in engine._jobs:
        step(engine)
    engine.add(leased("free", request("the", max_tokens=30)))
    step(engine)
    grammar = engine._jobs["strict"].sequences[0].constraint

    def overrun(*_: object) -> None:
        raise GrammarOverrun("too much")

    monkeypatch.setattr(type(grammar), "fill", overrun)
    outputs = {output.lease: output for output in step(engine)}
    failure = outputs["strict"].failure
    assert failure is not None
    assert (outputs["strict"].last, failure.reason, failure.message) == (True, "OUTPUT_FORMAT", "too much")
    assert outputs["free"].failure is None
    assert engine.capacity().jobs == 3
    engine.abort("free")


def test_a_job_that_is_aborted_while_its_format_is_prepared_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fresh_engine()
    compile_it = Grammars.compile

    def slowly(grammars: Grammars, output_format: OutputFormat) -> object:
        time.sleep(0.05)
        return compile_it(grammars, output_format)

    monkeypatch.setattr(Grammars, "compile", slowly)
    engine.add(leased("a", request(regex="[ab]{9}")))
    assert engine.capacity().jobs == 3
    assert engine.step() == []
    engine.abort("a")
    engine._admission._preparing.shutdown(wait=True)
    assert engine.step() is None
    assert engine.capacity().jobs == 4


def test_a_conversation_needs_a_chat_template() -> None:
    body = GenerateRequest(conversation=Conversation(messages=[Conversation.Message(role="user", content="hello")]))
    failure = run_one(shared_engine(), body.SerializeToString()).failure
    assert failure is not None
    assert (failure.reason, failure.field) == ("NO_CHAT_TEMPLATE", "conversation")


def test_the_tokens_computed_behind_a_cancel_are_those_of_the_step_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fresh_engine()
    body = request(prompt(8), max_tokens=30)
    for job in ("early", "late", "stays"):
        engine.add(leased(job, body))
    for _ in range(4):
        step(engine)
    engine.abort("early")
    run_it = engine._decoder.run

    def cancelled(*arguments: object) -> None:
        engine.abort("late")
        run_it(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine._decoder, "run", cancelled)
    step(engine)
    monkeypatch.undo()
    assert {output.lease for output in step(engine)} == {"stays"}
    assert engine.counters()["tokens_after_cancel"] == 1
    assert engine.capacity().jobs == 3
    engine.abort("stays")


def test_a_stop_token_of_the_request_ends_a_constrained_text_too() -> None:
    free = run_one(shared_engine(), request("the", regex="[a-c]{9}", max_tokens=20))
    stop = free.token_ids[3]
    ran = run_one(shared_engine(), request("the", regex="[a-c]{9}", max_tokens=20, stop_token_ids=[stop]))
    assert ran.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]
    assert ran.finish_reason == FINISH_REASON_STOP
