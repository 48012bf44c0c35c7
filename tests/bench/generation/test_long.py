"""Which pauses count."""

from dataclasses import replace
from math import isnan

import pytest

from bench.completions import Completions
from bench.generation.long import Gaps
from bench.generation.settings import Settings

GAPS = Gaps(Settings(running_streams=2, long_prompts=1, long_after_s=4.0))
FOUND = Completions(
    seconds=9.0,
    sent_s=[0.0, 0.0, 4.0],
    times_s=[[1.0, 3.0, 3.1, 4.5, 5.5], [2.0, 2.5, 6.0, 8.0], [7.0, 7.5]],
    token_ids=[[1] * 5, [1] * 4, [1] * 2],
)


def test_quiet_pauses_lie_between_the_last_stream_s_beginning_and_the_first_long_prompt() -> None:
    assert GAPS.quiet_ms(FOUND) == pytest.approx([100, 500])


def test_pauses_count_from_the_first_long_prompt_until_the_last_one_s_first_token() -> None:
    assert GAPS.long_ms(FOUND) == pytest.approx([1000])


def test_pauses_of_nobody_are_not_a_number() -> None:
    late = replace(FOUND, times_s=[[5.0], [5.0], [7.0, 7.5]])
    assert isnan(GAPS.quiet(late))
    assert isnan(GAPS.stutter(late))
    assert GAPS.stutter(FOUND) == 1


def test_first_tokens_are_those_of_the_long_prompts() -> None:
    assert GAPS.first_ms(50)(FOUND) == pytest.approx(3000)
