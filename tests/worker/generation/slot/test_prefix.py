"""Prompts that begin alike."""

import random

import numpy as np
import pytest

from tests.models import TinyLlama
from tests.worker.generation.jobs import fresh_engine, prompt, random_work, request, run_one, tiny_model
from tests.worker.generation.watched import WatchedEngine, watched
from tests.worker.steps import leased, step

CHUNK = 16
PIECE_BYTES = 2 * 2 * 2 * CHUNK * 16 * 4
"""Of one chunk: layers, key and value, heads, positions, head size, floats."""
SHARED = prompt(50, seed=7)


def cached(engine: WatchedEngine, token_ids: list[int]) -> int:
    """How many tokens of a prompt the engine says that it found."""
    return run_one(engine, request(token_ids, max_tokens=2)).results[-1].usage.cached_prompt_tokens


def keeping(pieces: int) -> WatchedEngine:
    return watched(tiny_model(), prefix_cache_bytes=pieces * PIECE_BYTES)


@pytest.mark.parametrize(
    ("length", "found"), [(1, 0), (15, 0), (16, 0), (17, 16), (32, 16), (33, 32), (48, 32), (50, 48)]
)
def test_whole_chunks_are_found_and_never_the_last_token(length: int, found: int) -> None:
    engine = keeping(10)
    assert cached(engine, SHARED[:length]) == 0
    assert cached(engine, SHARED[:length]) == found
    assert engine.counters()["prefix_cache_hit_tokens"] == found
    assert engine.counters()["prefix_cache_queried_tokens"] == 2 * length


def test_a_prompt_finds_as_much_as_it_shares_with_any_before_it() -> None:
    engine = keeping(20)
    cached(engine, SHARED)
    assert cached(engine, SHARED[:40] + prompt(20, seed=8)) == 32
    assert cached(engine, SHARED[:20] + prompt(40, seed=9)) == 16
    assert cached(engine, [SHARED[0] + 1, *SHARED[1:]]) == 0


def test_the_same_tokens_elsewhere_in_a_prompt_are_not_found() -> None:
    engine = keeping(20)
    cached(engine, SHARED[:CHUNK] + SHARED[CHUNK : 2 * CHUNK] + [5])
    assert cached(engine, SHARED[CHUNK : 2 * CHUNK] + SHARED[:CHUNK] + [5]) == 0


def test_what_is_found_is_what_would_have_been_computed_to_the_last_bit() -> None:
    dice = random.Random(3)
    plain, engine = keeping(0), keeping(6)
    for number in range(30):
        token_ids = SHARED[: dice.randint(1, 50)] + prompt(dice.randint(0, 30), number)
        body = request(token_ids, max_tokens=6, temperature=0.9, seed=number)
        expected = cache_behind(plain, body)
        assert cache_behind(engine, body) == expected
    assert engine.counters()["prefix_cache_hit_tokens"] > 200


def cache_behind(engine: WatchedEngine, body: bytes) -> list[bytes]:
    """The cache after each of three tokens."""
    engine.add(leased("a", body))
    found: list[bytes] = []
    while len(found) < 3:
        if step(engine):
            found.append(engine.cache("a")[1])
    engine.abort("a")
    engine.step()
    return found


def test_what_was_not_used_for_longest_goes_first_and_the_bytes_hold() -> None:
    engine = keeping(3)
    one, two, three = (prompt(17, seed) for seed in (1, 2, 3))
    for token_ids in (one, two, three):
        assert cached(engine, token_ids) == 0
    assert cached(engine, one) == CHUNK
    assert cached(engine, prompt(17, seed=4)) == 0
    assert [cached(engine, token_ids) for token_ids in (one, three)] == [CHUNK, CHUNK]
    assert cached(engine, two) == 0


def test_nothing_is_kept_where_no_memory_is_given() -> None:
    engine = watched(tiny_model(), prefix_cache_bytes=PIECE_BYTES - 1)
    assert [cached(engine, SHARED) for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_jobs_that_come_and_go_beside_each_other_get_what_they_get_without_it(seed: int) -> None:
    dice = random.Random(seed)
    plain, engine = fresh_engine(), fresh_engine(TinyLlama(), prefix_cache_bytes=5 * PIECE_BYTES)
    works = [random_work(str(index), dice) for index in range(10)]
    works += [
        leased(f"shared{index}", request(SHARED[: dice.randint(20, 50)], max_tokens=dice.randint(1, 9)))
        for index in range(10)
    ]
    dice.shuffle(works)
    alone = {work.job: run_one(plain, work.request).token_ids for work in works}
    together: dict[str, list[int]] = {work.job: [] for work in works}
    while works or engine.capacity().jobs < 4:
        if works and dice.random() < 0.5:
            engine.add(works.pop())
        for output in step(engine):
            together[output.lease] += output.result.deltas[0].token_ids  # type: ignore[union-attr]
    assert together == alone
    assert engine.counters()["prefix_cache_hit_tokens"] > 0


def test_a_continued_job_finds_what_its_own_first_half_left() -> None:
    engine = keeping(10)
    body = request(SHARED, max_tokens=20)
    whole = run_one(engine, body)
    rest = run_one(engine, body, whole.log[:14])
    assert rest.token_ids == whole.token_ids[14:]
    assert rest.results[-1].usage.cached_prompt_tokens == 48
    assert np.isclose(rest.cost, whole.cost)
