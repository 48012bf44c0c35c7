"""The growth test finds a leak of a given size in noise, and no leak where there is none."""

import random

import pytest

from tests.soak.growth import Bound, grows, growth, rises, trend
from tests.soak.report import FRONTEND

KIB, MIB = 1024, 1 << 20
CALLS = [float(1_500 * number) for number in range(10)]
SEEDS = range(200)


def memory(seed: int, leak: float, spikes: int = 0) -> list[float]:
    """Samples of a process of 70 MiB that leaks so many bytes a call: noise of half a MiB, and a few wild samples."""
    chance = random.Random(seed)
    values = [70 * MIB + leak * calls + chance.gauss(0, 0.5 * MIB) for calls in CALLS]
    for number in chance.sample(range(len(values)), spikes):
        values[number] += chance.uniform(5, 20) * MIB
    return values


@pytest.mark.parametrize("spikes", [0, 2])
def test_noise_is_not_growth(spikes: int) -> None:
    assert [seed for seed in SEEDS if grows(CALLS, memory(seed, 0, spikes), FRONTEND)] == []


@pytest.mark.parametrize("spikes", [0, 2])
def test_a_leak_above_the_bound_is_found_in_noise(spikes: int) -> None:
    leak = 2.0 * FRONTEND.over(CALLS[-1]) / CALLS[-1]
    assert [seed for seed in SEEDS if not grows(CALLS, memory(seed, leak, spikes), FRONTEND)] == []


def test_a_leak_below_the_bound_is_allowed() -> None:
    leak = 0.5 * FRONTEND.over(CALLS[-1]) / CALLS[-1]
    assert [seed for seed in SEEDS if grows(CALLS, memory(seed, leak), FRONTEND)] == []


def test_the_longer_a_run_the_smaller_the_leak_that_it_finds() -> None:
    bound = Bound(per_thousand=KIB, noise=MIB)
    short, long = [0.0, 1_000.0], [0.0, 100_000.0]
    leak = 12.0
    assert not grows(short, [leak * calls for calls in short], bound)
    assert grows(long, [leak * calls for calls in long], bound)


def test_the_trend_is_that_of_the_samples() -> None:
    assert trend([0, 10, 20, 30], [5, 25, 45, 65]) == 2
    assert growth([0, 10, 20, 30], [5, 25, 45, 65]) == 60


def test_shrinking_is_not_growth() -> None:
    assert not grows(CALLS, [100 * MIB - 50 * calls for calls in CALLS], Bound(per_thousand=0, noise=0))


def test_one_sample_says_nothing() -> None:
    assert not grows([5.0], [1e9], Bound(per_thousand=0, noise=0))


@pytest.mark.parametrize(
    ("values", "expected"), [([7, 7, 7], False), ([7, 7, 8], True), ([7, 8, 7], True), ([7, 6, 7], False), ([7], False)]
)
def test_a_count_may_not_rise_by_one(values: list[float], expected: bool) -> None:
    assert rises(values) is expected
