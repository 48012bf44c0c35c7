"""When requests are due."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from millrace.load.arrivals import Due, Piece, schedule, stretches
from millrace.load.scenario import Scenario, make_scenario


def scenario(seconds: float = 10, warmup_s: float = 0, seed: int = 0, **arrivals: Any) -> Scenario:
    given = {"model": "m", "arrivals": arrivals, "seconds": seconds, "warmup_s": warmup_s, "seed": seed}
    return make_scenario(given)


def times(made: Scenario) -> list[float]:
    return [due.at_s for due in schedule(made)]


def test_constant_arrivals_are_equally_far_apart() -> None:
    assert times(scenario(constant=4, seconds=1)) == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(("rate", "seconds"), [(0.1, 30), (0.7, 10), (2.2, 25), (30, 0.1), (1000, 0.3)])
def test_a_constant_rate_is_due_as_often_as_it_says(rate: float, seconds: float) -> None:
    assert len(times(scenario(constant=rate, seconds=seconds))) == round(rate * seconds)


def test_poisson_arrivals_have_the_mean_and_the_spread_of_an_exponential_distance() -> None:
    at = times(scenario(poisson=500, seconds=100))
    gaps = [later - earlier for earlier, later in pairwise(at)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(1 / 500, rel=0.02)
    assert variance**0.5 == pytest.approx(mean, rel=0.03)


def test_the_same_seed_draws_the_same_and_another_one_something_else() -> None:
    assert times(scenario(poisson=50)) == times(scenario(poisson=50)) != times(scenario(poisson=50, seed=1))


def test_the_warm_up_does_not_move_what_is_measured() -> None:
    without = times(scenario(poisson=50))
    assert [at for at in times(scenario(poisson=50, warmup_s=3)) if at >= 0] == without


def test_the_warm_up_is_not_what_is_measured_once_more() -> None:
    at = times(scenario(poisson=50, warmup_s=10))
    assert [one + 10 for one in at if one < -9] != pytest.approx([one for one in at if 0 <= one < 1])


def test_the_warm_up_comes_before_the_measuring_at_the_rate_it_begins_with() -> None:
    assert times(scenario(warmup_s=1, seconds=1, constant=2)) == [-1, -0.5, 0, 0.5]
    rising = scenario(warmup_s=100, ramp={"from": 20, "to": 400})
    assert sum(at < 0 for at in times(rising)) == pytest.approx(2000, rel=0.1)


def test_a_ramp_from_nothing_warms_up_with_the_mean_of_its_first_stretch() -> None:
    rising = scenario(warmup_s=10, ramp={"from": 0, "to": 20}, process="constant")
    assert sum(at < 0 for at in times(rising)) == 10


def test_requests_are_numbered_through_in_order_of_time() -> None:
    all_due = list(schedule(scenario(warmup_s=2, poisson=50)))
    assert [due.index for due in all_due] == list(range(len(all_due)))
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(all_due))
    assert -2 <= all_due[0].at_s < 0 <= all_due[-1].at_s < 10


@pytest.mark.parametrize("process", ["constant", "poisson"])
@pytest.mark.parametrize(("start", "end"), [(0, 1000), (1000, 1), (300, 300)])
def test_a_ramp_has_in_each_stretch_what_its_rate_promises(process: str, start: float, end: float) -> None:
    rising = scenario(ramp={"from": start, "to": end}, process=process)
    at = times(rising)
    for stretch in stretches(rising):
        due = sum(stretch.begin_s <= one < stretch.end_s for one in at)
        assert stretch.rate is not None
        expected = stretch.rate * (stretch.end_s - stretch.begin_s)
        assert due == pytest.approx(expected, abs=1.01 if process == "constant" else 5 * expected**0.5)


def test_a_ramp_is_ten_stretches_without_gaps() -> None:
    made = stretches(scenario(ramp={"from": 0, "to": 10}))
    assert [stretch.rate for stretch in made] == pytest.approx([0.5 + step for step in range(10)])
    assert made[0].begin_s == 0
    assert made[-1].end_s == 10
    assert all(earlier.end_s == later.begin_s for earlier, later in pairwise(made))


def test_steps_take_equal_shares_of_the_seconds() -> None:
    made = scenario(steps={"rates": [1, 2, 5]}, process="constant", seconds=6)
    assert [(one.begin_s, one.end_s, one.rate) for one in stretches(made)] == [(0, 2, 1), (2, 4, 2), (4, 6, 5)]
    at = times(made)
    assert at[:6] == pytest.approx([0, 1, 2, 2.5, 3, 3.5])
    assert at[6:] == pytest.approx([4 + step / 5 for step in range(10)])


def test_a_distance_that_a_step_begins_within_goes_on_at_the_new_rate() -> None:
    at = times(scenario(steps={"rates": [1, 2]}, process="constant", seconds=5))
    assert at == pytest.approx([0, 1, 2, 2.75, 3.25, 3.75, 4.25, 4.75])


def test_a_closed_loop_has_no_schedule_and_one_stretch() -> None:
    assert times(scenario(callers=3, warmup_s=2)) == []
    (only,) = stretches(scenario(callers=3))
    assert (only.begin_s, only.end_s, only.rate, only.callers) == (0, 10, None, 3)


def test_a_trace_counts_from_its_first_request_and_is_cut_at_the_seconds(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n100,7,5\n101.5,,3\n104,9,9\nnonsense\n")
    made = scenario(trace=str(path), seconds=4, warmup_s=3)
    assert list(schedule(made)) == [
        Due(index=0, at_s=0, prompt_tokens=7, output_tokens=5),
        Due(index=1, at_s=1.5, output_tokens=3),
    ]
    assert [one.rate for one in stretches(made)] == [0.5]


@pytest.mark.parametrize(("start", "end"), [(0.0, 3.0), (3.0, 0.5), (2.0, 2.0), (1e-9, 1e6)])
def test_the_inverse_gives_back_what_was_due_by_then(start: float, end: float) -> None:
    piece = Piece(5.0, 9.0, start, end)
    for share in (0.0, 0.1, 0.5, 1.0):
        elapsed = piece.at_s(share * piece.area) - 5.0
        assert start * elapsed + (end - start) / 8 * elapsed**2 == pytest.approx(share * piece.area, rel=1e-9)
