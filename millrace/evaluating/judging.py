"""Whether a result is good enough for a build."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from millrace.evaluating.kinds import MEASURES, Kind
from millrace.evaluating.result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    measure: str
    limit: float
    side: str

    def misses(self, value: float) -> bool:
        return value < self.limit if self.side == "--fail-under" else value > self.limit


def bound(side: str, text: str, kind: Kind) -> Bound:
    """From MEASURE=NUMBER. Raises ValueError."""
    name, equals, number = text.partition("=")
    if name not in MEASURES[kind]:
        raise ValueError(f"{side} {text}: there is no measure {name!r}; {kind} has {', '.join(MEASURES[kind])}")
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not equals or not math.isfinite(limit):
        raise ValueError(f"{side} {text}: must be {name}=NUMBER")
    return Bound(measure=name, limit=limit, side=side)


def missed(result: Result, bounds: Sequence[Bound], *, if_worse: bool) -> list[str]:
    """A sentence for each that fails it. A measure that is not defined for the data is missed too."""
    found = []
    for one in bounds:
        measure = result.system.measure(one.measure)
        if measure is None:
            found.append(f"{one.side} {one.measure}={one.limit:g}: these data do not define it")
        elif one.misses(measure.value):
            found.append(f"{one.side} {one.measure}={one.limit:g}: it is {measure.value:.6g}")
    if if_worse and result.comparison is not None and result.comparison.verdict == "worse":
        found.append(f"--fail-if-worse: {result.comparison.after} is worse than {result.comparison.before}")
    return found
