import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from millrace.engine import EngineContext, Output, Work
from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    GenerateRequest,
    GenerateResponse,
    Stopping,
    TokenIds,
    Usage,
)
from services.worker.stub import FIRST, POISON_EXIT, StubEngine, stub_token
from tests.worker.steps import leased, step


def stub(slots: int = 4, **options: Any) -> StubEngine:
    config = {"slots": slots, "engine_options": {"step_ms": 1} | options}
    return StubEngine(EngineContext(folder=Path(), config=config, device="cpu", threads=0))


def request(text: str = "two words", max_tokens: int | None = 6) -> bytes:
    return GenerateRequest(text=text, stopping=Stopping(max_tokens=max_tokens)).SerializeToString()


def results(outputs: list[Output]) -> list[GenerateResponse]:
    return [output.result for output in outputs if isinstance(output.result, GenerateResponse)]


def run(engine: StubEngine, work: Work) -> list[Output]:
    engine.add(work)
    outputs = step(engine)
    while not outputs[-1].last:
        outputs += step(engine)
    return outputs


def token_ids(outputs: list[Output]) -> list[int]:
    return [token_id for result in results(outputs) for token_id in result.deltas[0].token_ids]


def test_each_token_follows_from_the_job_its_position_the_one_before_and_the_epoch() -> None:
    previous = FIRST
    for position, token_id in enumerate(token_ids(run(stub(), leased("a", request(), epoch=3)))):
        assert token_id == stub_token("a", position, previous, 3)
        previous = token_id


def test_a_token_depends_on_each_of_its_arguments_and_stays_what_it_is() -> None:
    neighbours = {stub_token("a", 1, 2, 3), stub_token("b", 1, 2, 3), stub_token("a", 2, 2, 3)}
    neighbours |= {stub_token("a", 1, 3, 3), stub_token("a", 1, 2, 4)}
    assert len(neighbours) == 5
    assert stub_token("job", 0, FIRST, 1) == 7179
    assert stub_token("job", 0, FIRST, 1, vocabulary=10) < 10


def test_the_last_result_has_the_finish_reason_and_the_usage() -> None:
    outputs = run(stub(), leased("a", request()))
    last = results(outputs)[-1]
    assert [output.last for output in outputs] == [False] * 5 + [True]
    assert last.deltas[0].finish_reason == FINISH_REASON_LENGTH
    assert last.usage == Usage(prompt_tokens=2, completion_tokens=6)
    assert [output.cost for output in outputs] == [3, 4, 5, 6, 7, 8]
    assert all(result.deltas[0].text == f"{result.deltas[0].token_ids[0]} " for result in results(outputs))


def test_a_job_goes_on_behind_its_log_under_its_new_epoch() -> None:
    first = run(stub(), leased("a", request(), epoch=1))
    log = [result.SerializeToString() for result in results(first)]
    for size in range(6):
        rest = run(stub(), leased("a", request(), results=log[:size], epoch=2))
        tokens = token_ids(first)[:size] + token_ids(rest)
        epochs = [1] * size + [2] * (6 - size)
        before = [FIRST, *tokens]
        assert tokens == [stub_token("a", n, before[n], epoch) for n, epoch in enumerate(epochs)]


def test_a_log_that_is_complete_only_ends() -> None:
    log = [result.SerializeToString() for result in results(run(stub(), leased("a", request())))]
    (ended,) = run(stub(), leased("a", request(), results=log, epoch=2))
    assert (ended.result, ended.last, ended.failure) == (None, True, None)


def test_a_log_that_holds_too_much_ends_in_data_loss() -> None:
    log = [result.SerializeToString() for result in results(run(stub(), leased("a", request())))[:5]]
    (ended,) = run(stub(), leased("a", request(max_tokens=3), results=log, epoch=2))
    assert ended.failure is not None
    assert ended.failure.reason == "LOG_MISMATCH"


def test_a_hundred_tokens_are_the_default_and_a_prompt_may_be_tokens() -> None:
    body = GenerateRequest(tokens=TokenIds(ids=[1, 2, 3])).SerializeToString()
    outputs = run(stub(step_ms=0), leased("a", body))
    assert len(token_ids(outputs)) == 100
    assert results(outputs)[-1].usage.prompt_tokens == 3


def test_a_step_takes_its_time_once_for_all_jobs() -> None:
    engine = stub(step_ms=20)
    for job in ("a", "b", "c"):
        engine.add(leased(job, request()))
    began = time.monotonic()
    assert len(step(engine)) == 3
    assert time.monotonic() - began >= 0.02
    assert engine.steps == 1


def test_a_clock_that_shows_no_time_for_a_step_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stub(step_ms=50)
    monkeypatch.setattr("services.worker.stub.time.sleep", lambda _: None)
    engine.add(leased("a", request()))
    with pytest.raises(AssertionError, match="did not really run"):
        engine.step()


def test_slots_count_down_and_an_abort_frees_one() -> None:
    engine = stub(slots=2)
    assert engine.capacity().jobs == 2
    engine.add(leased("a", request()))
    assert engine.capacity().jobs == 1
    engine.abort("a")
    engine.abort("unknown")
    assert engine.capacity().jobs == 2
    assert engine.step() is None


POISONED = """
from tests.worker.test_stub import leased, request, stub
engine = stub(poison={poison})
engine.add(leased("a", request("poison", 1)))
engine.step()
"""


@pytest.mark.parametrize(("poison", "code"), [(True, POISON_EXIT), (False, 0)])
def test_the_poison_prompt_ends_the_process_only_where_the_model_allows_it(poison: bool, code: int) -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", POISONED.format(poison=poison)], check=False, timeout=60, cwd=root)
    assert ended.returncode == code
