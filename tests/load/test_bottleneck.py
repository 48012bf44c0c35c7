"""When a load test says that it has measured itself."""

import re

import pytest

from millrace.load.bottleneck import bottleneck
from millrace.load.result import Generator, Stage, encode, histogram


def stage(e2e_ms: int = 20, **ended: int) -> Stage:
    held = histogram()
    held.record_value(e2e_ms * 1000)
    return Stage(begin_s=0.0, end_s=1.0, rate=1.0, histograms={"e2e": encode(held)}, ended=ended)


def generator(cpu_share: float = 0.5, late_p99_ms: float = 1.0) -> Generator:
    return Generator(cpu_share=cpu_share, late_p99_ms=late_p99_ms, sent=100)


@pytest.mark.parametrize(
    ("generators", "total", "words"),
    [
        ([generator(), generator(0.93)], stage(OK=1), "used 93% of a core.*more generators than 2"),
        ([generator(0.7, 6)], stage(OK=1), "more than 6.0 ms late.*more generators than 1"),
        ([generator(0.1, 6)], stage(OK=1), "more than 6.0 ms late.*little to do.*one of its own"),
        ([generator(late_p99_ms=21)], stage(200, OK=1), "more than 21.0 ms late"),
        ([generator()], stage(OK=1, NOT_SENT=7), "7 requests were not sent"),
    ],
)
def test_a_generator_that_was_too_slow_says_so_and_what_to_do(
    generators: list[Generator], total: Stage, words: str
) -> None:
    assert re.search(words, bottleneck(generators, total) or "")


@pytest.mark.parametrize(
    ("generators", "total"),
    [
        ([generator(), generator(0.84)], stage(OK=1)),
        ([generator(late_p99_ms=4.9)], stage(OK=1)),
        ([generator(late_p99_ms=19)], stage(200, OK=1)),
        ([generator(late_p99_ms=4.9)], Stage(begin_s=0.0, end_s=1.0, rate=1.0)),
        ([generator()], stage(OK=1, UNAVAILABLE=7)),
    ],
)
def test_a_generator_that_was_fast_enough_says_nothing(generators: list[Generator], total: Stage) -> None:
    assert bottleneck(generators, total) is None
