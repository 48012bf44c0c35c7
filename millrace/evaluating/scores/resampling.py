"""Intervals by the bootstrap: units are drawn anew with replacement, every measure is reckoned from each draw, and the
middle 95 % is the interval (the percentile method: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993). Two
models that answered the same units are drawn together, so that what is hard for both does not blur their difference.

Where all units are right, all draws are alike: a share of right units has Wilson's interval instead ("Probable
Inference, the Law of Succession, and Statistical Inference", 1927)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field
from scipy import stats  # type: ignore[import-untyped]

from millrace.evaluating.kinds import Strict
from millrace.evaluating.scores.scorer import Floats, Scorer

CONFIDENCE = 0.95
COSTLY_RESAMPLES = 200
"""Of measures that take long, as areas under curves do."""
MOST_CELLS = 4_000_000
"""Weights that are held at once."""


class Measure(Strict):
    name: str
    value: float
    low: float | None = Field(default=None, description="95 % interval; None: too costly, or not defined")
    high: float | None = None
    lower_is_better: bool = False


class Difference(Strict):
    """After minus before, on the units that both have."""

    name: str
    before: float
    after: float
    low: float | None = Field(default=None, description="95 % interval of the difference, paired")
    high: float | None = None
    lower_is_better: bool = False

    @property
    def difference(self) -> float:
        return self.after - self.before


def measures(scorer: Scorer, *, resamples: int, seed: int) -> list[Measure]:
    (drawn,) = _resampled([scorer], resamples, seed)
    found = []
    for name, value in scorer.point().items():
        is_share = name in scorer.proportions
        low, high = wilson(value, scorer.count) if is_share else interval(drawn.get(name))
        found.append(
            Measure(name=name, value=value, low=low, high=high, lower_is_better=name in scorer.lower_is_better)
        )
    return found


def differences(before: Scorer, after: Scorer, *, resamples: int, seed: int) -> list[Difference]:
    """Of measures that both have. The same units, in the same order."""
    one, other = _resampled([before, after], resamples, seed)
    first, second = before.point(), after.point()
    found = []
    for name in first.keys() & second.keys():
        low, high = interval(other[name] - one[name]) if name in one and name in other else (None, None)
        found.append(
            Difference(
                name=name,
                before=first[name],
                after=second[name],
                low=low,
                high=high,
                lower_is_better=name in before.lower_is_better,
            )
        )
    order = [*first]
    return sorted(found, key=lambda row: order.index(row.name))


def draws(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each of `count` units was drawn in each resample, [some resamples, count] at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, min(COSTLY_RESAMPLES, MOST_CELLS // max(count, 1)))
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        cells = generator.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(cells.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def interval(figures: Floats | None) -> tuple[float | None, float | None]:
    """The middle of the resamples, without those that have no figure."""
    known = figures[np.isfinite(figures)] if figures is not None else np.empty(0)
    if not known.size:
        return None, None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def wilson(share: float, count: int) -> tuple[float, float]:
    found = stats.binomtest(round(share * count), count).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def _resampled(scorers: Sequence[Scorer], resamples: int, seed: int) -> list[dict[str, Floats]]:
    """Each one's measures of the same draws."""
    found: list[defaultdict[str, list[Floats]]] = [defaultdict(list) for _ in scorers]
    done = 0
    for weights in draws(scorers[0].count, resamples, seed):
        for scorer, drawn in zip(scorers, found, strict=True):
            for name, figures in scorer.resampled(weights, costly=done < COSTLY_RESAMPLES).items():
                drawn[name].append(figures)
        done += len(weights)
    return [{name: np.concatenate(parts) for name, parts in drawn.items()} for drawn in found]
