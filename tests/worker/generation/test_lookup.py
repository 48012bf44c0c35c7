"""Speculation by prompt lookup."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.generation.lookup import LONGEST, PROBE_EVERY, SHORTEST, Payoff, PromptLookup
from tests.models import EOS_ID
from tests.worker.generation.jobs import prompt, request, run_one, shared_engine, tiny_model
from tests.worker.generation.watched import WatchedEngine, watched
from tests.worker.steps import leased, step

REPEATING = prompt(9, seed=4) * 5


@pytest.fixture
def guessing(monkeypatch: pytest.MonkeyPatch) -> WatchedEngine:
    """An engine that guesses whenever it can."""
    monkeypatch.setattr(Payoff, "pays", lambda self: True)
    return watched(tiny_model(), speculative_tokens=5)


@given(token_ids=st.lists(st.integers(0, 3), max_size=60), count=st.integers(1, 6))
def test_a_guess_is_what_followed_the_latest_earlier_place_that_ends_alike(token_ids: list[int], count: int) -> None:
    lookup = PromptLookup()
    lookup.extend(token_ids)
    assert lookup.guess(count) == naive(token_ids, count)


def naive(token_ids: list[int], count: int) -> list[int]:
    for size in range(min(LONGEST, len(token_ids)), SHORTEST - 1, -1):
        for end in range(len(token_ids) - 1, size - 1, -1):
            if token_ids[end - size : end] == token_ids[len(token_ids) - size :]:
                return token_ids[end : end + count]
    return []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guesses_right_and_wrong_change_when_tokens_come_and_not_which(
    guessing: WatchedEngine, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    dice, body = random.Random(1), request(prompt(9), max_tokens=60, temperature=temperature, seed=8)
    plain = run_one(shared_engine(speculative_tokens=0), body)

    def guess(lookup: PromptLookup, count: int) -> list[int]:
        following = plain.token_ids[len(lookup) - 9 :][: dice.randint(0, count)]
        return [token_id if dice.random() < 0.8 else (token_id + 1) % 300 for token_id in following]

    monkeypatch.setattr(PromptLookup, "guess", guess)
    for _ in range(5):
        ran = run_one(guessing, body)
        assert (ran.token_ids, ran.text) == (plain.token_ids, plain.text)
        assert ran.results[-1].usage == plain.results[-1].usage
        assert len(ran.results) < 50
    totals = guessing.counters()
    assert 100 < totals["right_guesses"] < totals["guessed_tokens"]
    assert totals["completion_tokens"] == 5 * 60


@pytest.mark.parametrize(
    "fields",
    [
        {"stop_strings": ["e", "a", "o"]},
        {"ignore_eos": None, "temperature": 1.5},
        {"stop_token_ids": [5, 6, 7, 8, 9, 10, 11, 12]},
        {"min_tokens": 20, "stop_token_ids": list(range(100))},
    ],
    ids=str,
)
def test_a_text_that_ends_within_a_guess_ends_there(guessing: WatchedEngine, fields: dict[str, object]) -> None:
    for seed in range(8):
        body = request(REPEATING, **({"max_tokens": 40, "temperature": 0.8, "seed": seed} | fields))
        plain = run_one(shared_engine(speculative_tokens=0), body)
        ran = run_one(guessing, body)
        assert (ran.token_ids, ran.text, ran.finish_reason) == (plain.token_ids, plain.text, plain.finish_reason)
        assert EOS_ID not in ran.token_ids[:-1] or "ignore_eos" not in fields


def test_others_that_join_in_the_middle_get_what_they_get_alone(guessing: WatchedEngine) -> None:
    body, other = request(REPEATING, max_tokens=50), request(prompt(20), max_tokens=20, temperature=0.9, seed=2)
    expected = {"first": run_one(shared_engine(), body).token_ids, "second": run_one(shared_engine(), other).token_ids}
    guessing.add(leased("first", body))
    found: dict[str, list[int]] = {"first": [], "second": []}
    for number in range(100):
        if number == 9:
            guessing.add(leased("second", other))
        for output in step(guessing):
            found[output.lease] += output.result.deltas[0].token_ids  # type: ignore[union-attr]
    assert found == expected


@pytest.mark.parametrize(
    "fields",
    [{"regex": "[ab]{30}"}, {"presence_penalty": 1.0}, {"logprobs": 1}, {"logit_bias": {3: 1.0}}],
    ids=str,
)
def test_what_depends_on_more_than_the_logits_is_not_guessed(
    guessing: WatchedEngine, fields: dict[str, object]
) -> None:
    run_one(guessing, request(REPEATING, max_tokens=30, **fields))
    assert guessing.counters()["guessed_tokens"] == 0


def test_a_model_whose_continuations_are_replayed_never_guesses() -> None:
    engine = watched(tiny_model(), speculative_tokens=5, continuation="replay")
    assert engine.config.speculative_tokens == 0


def note(payoff: Payoff, *, guessed: bool, tokens_a_second: float) -> None:
    payoff.note(guessed=guessed, tokens=1000, began=time.monotonic() - 1000 / tokens_a_second)


def test_guessing_goes_on_only_where_it_gave_more_tokens_a_second() -> None:
    payoff = Payoff()
    assert not payoff.pays()
    note(payoff, guessed=False, tokens_a_second=50)
    assert payoff.pays()
    note(payoff, guessed=True, tokens_a_second=80)
    assert payoff.pays()
    for _ in range(20):
        note(payoff, guessed=True, tokens_a_second=40)
    asked = [payoff.pays() for _ in range(3 * PROBE_EVERY)]
    assert sum(asked) == 3
