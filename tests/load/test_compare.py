from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from millrace.load.buckets import stack
from millrace.load.compare import Comparison, Row, compare, flatten
from millrace.load.result import Result, encode, histogram, quantile_ms
from tests.load.results import make_result

FEW = 200
"""Resamples, where many comparisons are made."""


def row(comparison: Comparison, metric: str) -> Row:
    return next(row for row in comparison.rows if row.metric == metric)


def worse(comparison: Comparison) -> set[str]:
    return {row.metric for row in comparison.rows if row.verdict == "worse"}


def with_intervals(result: Result, changes: dict[int, dict[str, Any]]) -> Result:
    """The same with fields of some intervals changed."""
    intervals = list(result.intervals)
    for place, change in changes.items():
        intervals[place] = intervals[place].model_copy(update=change)
    return result.model_copy(update={"intervals": intervals})


@pytest.fixture(scope="module")
def base() -> Result:
    return make_result(seed=100)


@pytest.fixture(scope="module")
def slower() -> Result:
    return make_result(seed=101, slower=1.2)


def test_runs_of_the_same_service_hardly_ever_differ() -> None:
    results = [make_result(seed=seed, seconds=30) for seed in range(11)]
    pairs = [(one, other) for place, one in enumerate(results) for other in results[:place]][:50]
    compared = [compare(one, other, seed=seed, resamples=FEW) for seed, (one, other) in enumerate(pairs)]
    assert sum(comparison.regressed for comparison in compared) <= 2


def test_latencies_a_fifth_higher_are_a_regression(base: Result, slower: Result) -> None:
    comparison = compare(base, slower)
    assert comparison.regressed
    assert {"e2e p99", "tpot p99", "e2e p50", "ttft p50", "itl p50"} <= worse(comparison)
    assert not {"throughput", "goodput", "tokens/s", "error share"} & worse(comparison)
    slowed = row(comparison, "e2e p99")
    assert slowed.low is not None
    assert slowed.high is not None
    assert slowed.low < 1.2 < slowed.high
    assert slowed.ratio == pytest.approx(slowed.after / slowed.before)


def test_latencies_a_fifth_lower_are_better(base: Result, slower: Result) -> None:
    comparison = compare(slower, base)
    assert not comparison.regressed
    assert row(comparison, "tpot p50").verdict == "better"


def test_what_lies_within_the_threshold_is_no_regression(base: Result, slower: Result) -> None:
    assert not compare(base, slower, threshold=0.5).regressed


def test_one_slow_interval_is_none(base: Result) -> None:
    slow = {}
    for metric in ("e2e", "ttft", "tpot", "itl"):
        held = histogram()
        held.record_value(30_000_000, 20)
        slow[metric] = encode(held)
    comparison = compare(base, with_intervals(base, {30: {"histograms": slow}}))
    spoilt = row(comparison, "e2e p99")
    assert spoilt.ratio is not None
    assert spoilt.ratio > 5
    assert not comparison.regressed


def test_a_figure_is_the_runs_own(base: Result) -> None:
    comparison = compare(base, base)
    assert row(comparison, "e2e p99").before == pytest.approx(quantile_ms(base.total.histograms["e2e"], 0.99))
    measured = [one for one in base.intervals if 0 <= one.at_s < base.scenario.seconds]
    assert row(comparison, "throughput").before == pytest.approx(sum(one.ok for one in measured) / len(measured))
    assert row(comparison, "tokens/s").after == pytest.approx(sum(one.tokens for one in measured) / len(measured))
    assert all(row.ratio in (1, None) for row in comparison.rows)


def test_less_throughput_is_a_regression(base: Result) -> None:
    halved = {place: {"ended": {"OK": one.ok // 2}} for place, one in enumerate(base.intervals)}
    comparison = compare(base, with_intervals(base, halved))
    assert worse(comparison) == {"throughput"}
    assert row(compare(with_intervals(base, halved), base), "throughput").verdict == "better"


def test_errors_where_there_were_none_are_told_by_their_difference(base: Result) -> None:
    failing = row(compare(base, make_result(seed=101, errors=0.04)), "error share")
    assert failing.verdict == "worse"
    assert failing.before == 0
    assert failing.ratio is None
    assert failing.difference == pytest.approx(0.04, abs=0.015)
    assert failing.low is not None
    assert failing.low > 0.01


def test_errors_that_the_slo_allows_are_no_regression(base: Result) -> None:
    assert row(compare(base, make_result(seed=101, errors=0.005)), "error share").verdict == "same"


def test_a_service_that_answers_nothing_anymore_is_a_regression(base: Result) -> None:
    comparison = compare(base, make_result(seed=101, errors=1.0))
    assert worse(comparison) >= {"throughput", "goodput", "tokens/s", "error share"}
    assert not any(row.unit == "ms" for row in comparison.rows)


def test_runs_of_a_few_seconds_are_not_judged(base: Result) -> None:
    for pair in ((base, make_result(seconds=9, slower=3)), (make_result(seconds=9), base)):
        comparison = compare(*pair)
        assert {row.verdict for row in comparison.rows} == {"too short to say"}
        assert all(row.low is None and row.high is None for row in comparison.rows)
        assert not comparison.regressed


def test_the_same_seed_gives_the_same_intervals(base: Result, slower: Result) -> None:
    first = compare(base, slower, seed=3, resamples=FEW)
    assert first == compare(base, slower, seed=3, resamples=FEW)
    assert first != compare(base, slower, seed=4, resamples=FEW)


def test_stages_are_resampled_apart() -> None:
    """Or the spread between loads would hide any change: p50 of a run up to saturation varies by far more than this."""
    loads: dict[str, Any] = {"arrivals": {"steps": {"rates": [5, 30, 50, 55]}}, "seconds": 80}
    comparison = compare(make_result(**loads), make_result(seed=1, slower=1.25, **loads))
    assert "tpot p50" in worse(comparison)
    rate = row(comparison, "throughput")
    assert rate.low is not None
    assert rate.high is not None
    assert rate.high - rate.low < 0.25


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "other"}, "models differ: pycode and other"),
        ({"task": "infer"}, "tasks differ: generate and infer"),
        ({"arrivals": {"poisson": 21}}, "arrivals differ: {'poisson': 20.0} and {'poisson': 21.0}"),
    ],
)
def test_runs_that_did_not_ask_for_the_same_are_refused(base: Result, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compare(base, make_result(seconds=12, **changes))


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_that_is_not_a_share_is_refused(base: Result, threshold: float) -> None:
    with pytest.raises(ValueError, match="must be a share"):
        compare(base, base, threshold=threshold)


def test_what_else_differs_is_noted(base: Result) -> None:
    other = base.model_copy(
        update={
            "scenario": base.scenario.model_copy(update={"seed": 7, "name": "another"}),
            "hardware": {"cpu": "another", "cores": 2, "memory_gib": 8.0},
            "versions": {"millrace": "0.2.0", "python": "3.11.9", "redis": "8"},
            "bottleneck": "It was busy.",
        }
    )
    assert list(compare(base, other, resamples=FEW).notes) == [
        "setting seed: 0 before, 7 after",
        "version millrace: 0.1.0 before, 0.2.0 after",
        "version redis: None before, 8 after",
        "hardware cpu: AMD EPYC 7763 before, another after",
        "after, the generator may be what was measured: It was busy.",
    ]


def test_a_comparison_is_json(base: Result) -> None:
    comparison = compare(base, base, resamples=FEW)
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison


def test_settings_within_settings_are_named_by_their_path() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": [2]}, "e": {}}}) == {"a": 1, "b.c.d": [2], "b.e": {}}


def _recorded(values: Iterable[int]) -> str:
    held = histogram()
    for value in values:
        held.record_value(value)
    return encode(held)


def test_quantiles_of_many_histograms_are_those_of_each() -> None:
    generator = np.random.default_rng(0)
    encoded = [_recorded((10 ** generator.uniform(0, 9, 50)).astype(int).tolist()) for _ in range(20)]
    shares = (0.0, 0.01, 0.5, 0.9, 0.999, 1.0)
    found = stack([*encoded, None]).quantiles(shares)
    for place, share in enumerate(shares[1:], start=1):
        assert found[place, :-1].tolist() == [quantile_ms(one, share) for one in encoded]
    assert np.isnan(found[:, -1]).all()


def test_merged_histograms_are_as_if_recorded_together() -> None:
    first, second = _recorded([5, 700, 90_000]), _recorded([3_000, 3_001])
    both = stack([first, second]).merged(np.array([[1.0, 1.0], [2.0, 0.0]]))
    together = _recorded([5, 700, 90_000, 3_000, 3_001])
    assert both.quantiles([0.5, 1.0])[:, 0].tolist() == [quantile_ms(together, 0.5), quantile_ms(together, 1.0)]
    assert both.totals().tolist() == [5, 6]
    assert both.mean()[1] == pytest.approx((0.005 + 0.7 + 90) / 3, rel=1e-3)


def test_an_empty_stack_has_no_quantiles() -> None:
    assert np.isnan(stack([None]).quantiles([0.5])).all()
    assert np.isnan(stack([None]).mean()).all()
