"""Whether one run was better or worse than another, with intervals of confidence: `millrace load compare`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from millrace.load.bootstrap import Resampled, interval
from millrace.load.buckets import Array
from millrace.load.result import Interval, Metric, Result
from millrace.load.scenario import Slo, Strict

RESAMPLES = 2000
LEAST_S = 10.0
"""Measured seconds below which no verdict is given."""
COMPARED: tuple[Metric, ...] = ("e2e", "ttft", "tpot", "itl")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
FREE = {"name", "address", "http", "tenant", "tls"}
"""Settings whose difference is not worth a note."""

Verdict = Literal["same", "better", "worse", "too short to say"]


class Row(Strict):
    """One metric of both runs."""

    metric: str = Field(description="throughput, goodput, tokens/s, error share, e2e p50, …")
    unit: str
    before: float
    after: float
    ratio: float | None = Field(default=None, description="after / before; None for the error share, or before is 0")
    difference: float | None = Field(default=None, description="of the error share: after - before")
    low: float | None = Field(default=None, description="95 % interval of the ratio, or of the difference")
    high: float | None = None
    verdict: Verdict


class Comparison(Strict):
    """A metric is worse where the whole interval lies beyond the threshold: a latency's ratio above 1 + threshold, a
    rate's below 1 - threshold. The error share is worse where the whole interval of the difference lies above what the
    SLO lets fail (1 % without one), or above the threshold if that is less."""

    before: str = Field(description="the scenario's name and when it was started")
    after: str
    threshold: float
    rows: Sequence[Row]
    notes: Sequence[str] = Field(default=(), description="what differs besides, and may be the reason")

    @property
    def regressed(self) -> bool:
        return any(row.verdict == "worse" for row in self.rows)


def compare(
    before: Result, after: Result, *, threshold: float = 0.05, seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """Raises ValueError where the two did not ask for the same, or the threshold is not a share."""
    if not 0 <= threshold < 1:
        raise ValueError(f"the threshold must be a share from 0 to below 1, not {threshold}")
    _refuse(before, after)
    generator = np.random.default_rng(seed)
    first, second = (Resampled.of(result, generator, resamples) for result in (before, after))
    enough = min(first.seconds, second.seconds) >= LEAST_S
    judged = Judged(threshold=threshold, errors=min(threshold, (after.scenario.slo or Slo()).errors), enough=enough)
    return Comparison(
        before=_title(before),
        after=_title(after),
        threshold=threshold,
        rows=[*_rates(first, second, judged), _errors(first, second, judged), *_latencies(first, second, judged)],
        notes=[*_notes(before, after)],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """By what rows are judged."""

    threshold: float
    errors: float
    enough: bool

    def ratio(self, metric: str, unit: str, before: Array, after: Array, *, more_is_better: bool) -> Row:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = after / before
        ratio = float(ratios[0]) if before[0] > 0 else None
        low, high = interval(ratios) if ratio is not None and self.enough else (None, None)
        return Row(
            metric=metric,
            unit=unit,
            before=float(before[0]),
            after=float(after[0]),
            ratio=ratio,
            low=low,
            high=high,
            verdict=self._verdict(low, high, 1 - self.threshold, 1 + self.threshold, more_is_better=more_is_better),
        )

    def difference(self, metric: str, before: Array, after: Array) -> Row:
        differences = after - before
        low, high = interval(differences) if self.enough else (None, None)
        return Row(
            metric=metric,
            unit="share",
            before=float(before[0]),
            after=float(after[0]),
            difference=float(differences[0]),
            low=low,
            high=high,
            verdict=self._verdict(low, high, -self.errors, self.errors, more_is_better=False),
        )

    def _verdict(
        self, low: float | None, high: float | None, least: float, most: float, *, more_is_better: bool
    ) -> Verdict:
        if not self.enough:
            return "too short to say"
        if low is None or high is None or (high >= least and low <= most):
            return "same"
        return "better" if (low > most) == more_is_better else "worse"


def _rates(before: Resampled, after: Resampled, judged: Judged) -> Iterator[Row]:
    counts: Mapping[str, Callable[[Interval], int]] = {
        "throughput": lambda one: one.ok,
        "goodput": lambda one: one.good,
        "tokens/s": lambda one: one.tokens,
    }
    for metric, count in counts.items():
        unit = "tokens/s" if metric == "tokens/s" else "requests/s"
        yield judged.ratio(metric, unit, before.per_second(count), after.per_second(count), more_is_better=True)


def _errors(before: Resampled, after: Resampled, judged: Judged) -> Row:
    shares = (run.share(lambda one: one.all_ended - one.ok, lambda one: one.all_ended) for run in (before, after))
    return judged.difference("error share", *shares)


def _latencies(before: Resampled, after: Resampled, judged: Judged) -> Iterator[Row]:
    for metric in COMPARED:
        one, other = (run.quantiles(metric, list(QUANTILES.values())) for run in (before, after))
        for name, first, second in zip(QUANTILES, one, other, strict=True):
            if np.isfinite(first[0]) and np.isfinite(second[0]):
                yield judged.ratio(f"{metric} {name}", "ms", first, second, more_is_better=False)


def _title(result: Result) -> str:
    return f"{result.scenario.name}, {result.started_at}"


def _refuse(before: Result, after: Result) -> None:
    pairs: dict[str, tuple[Any, Any]] = {
        "models": (before.scenario.model, after.scenario.model),
        "tasks": (before.task, after.task),
        "arrivals": (_arrivals(before), _arrivals(after)),
    }
    for name, (one, other) in pairs.items():
        if one != other:
            raise ValueError(f"the two are not comparable, their {name} differ: {one} and {other}")


def _arrivals(result: Result) -> dict[str, Any]:
    return result.scenario.arrivals.model_dump(mode="json", exclude_defaults=True, by_alias=True)


def _notes(before: Result, after: Result) -> Iterator[str]:
    settings = (one.scenario.model_dump(mode="json", by_alias=True, exclude=FREE) for one in (before, after))
    parts = {
        "setting": (flatten(one) for one in settings),
        "version": (before.versions, after.versions),
        "hardware": (before.hardware, after.hardware),
    }
    for name, (one, other) in parts.items():
        for key in sorted({*one, *other}):
            if one.get(key) != other.get(key):
                yield f"{name} {key}: {one.get(key)} before, {other.get(key)} after"
    for when, result in (("before", before), ("after", after)):
        if result.bottleneck:
            yield f"{when}, the generator may be what was measured: {result.bottleneck}"
        if result.is_faulty:
            yield f"{when}, streams were not as promised"


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings within settings by their path, as `requests.max_tokens`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
