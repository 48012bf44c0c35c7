"""When requests are due.

An open loop's rate is a few straight pieces over time. A Poisson process of unit rate, or the whole numbers where the
distances shall be equal, are marks on the axis of the cumulative rate; each mark is carried over to the axis of time by
the inverse, which is exact for any rate (Çinlar, "Introduction to Stochastic Processes", 1975, chapter 4).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from random import Random

from millrace.load.scenario import Arrivals, Scenario
from millrace.load.trace import read_trace

RAMP_STRETCHES = 10
SLACK = 1e-9
"""Of a mark: what rounding may push over the end of a piece belongs behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A request, in seconds from the begin of measuring. Its lengths are those of a trace."""

    index: int
    at_s: float
    prompt_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A time of equal load. `rate`: requests a second, the mean; None in a closed loop, which has `callers`."""

    begin_s: float
    end_s: float
    rate: float | None = None
    callers: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """The rate goes evenly from `start` to `end`."""

    begin_s: float
    end_s: float
    start: float
    end: float

    @property
    def area(self) -> float:
        """Requests that are due in it, on average."""
        return (self.start + self.end) / 2 * (self.end_s - self.begin_s)

    def at_s(self, mark: float) -> float:
        """When `mark` requests of it are due: the root of slope/2 t² + start t = mark."""
        if mark <= 0:
            return self.begin_s
        slope = (self.end - self.start) / (self.end_s - self.begin_s)
        root = math.sqrt(max(self.start**2 + 2 * slope * mark, 0.0))
        return min(self.begin_s + 2 * mark / (self.start + root), self.end_s)


def stretches(scenario: Scenario) -> list[Stretch]:
    """The parts of the time that is measured, in order, without gaps. Raises what `schedule` does."""
    arrivals, seconds = scenario.arrivals, scenario.seconds
    if arrivals.callers is not None:
        return [Stretch(begin_s=0.0, end_s=seconds, callers=arrivals.callers)]
    if arrivals.trace is not None:
        return [Stretch(begin_s=0.0, end_s=seconds, rate=sum(1 for _ in schedule(scenario)) / seconds)]
    pieces = _cut(_pieces(arrivals, seconds)[0]) if arrivals.ramp is not None else _pieces(arrivals, seconds)
    return [Stretch(begin_s=one.begin_s, end_s=one.end_s, rate=(one.start + one.end) / 2) for one in pieces]


def schedule(scenario: Scenario) -> Iterator[Due]:
    """All requests in order of time, from -warmup_s to below `seconds`; the same for the same scenario. A closed loop
    has none, a trace has no warm-up.

    Raises ValueError for a trace that is wrong, where it is reached; OSError where it cannot be read.
    """
    if scenario.arrivals.callers is not None:
        return iter(())
    if scenario.arrivals.trace is not None:
        return _traced(scenario)
    pieces = _pieces(scenario.arrivals, scenario.seconds)
    warmup = Piece(-scenario.warmup_s, 0.0, *[_first_rate(pieces[0])] * 2)
    times = chain(
        _times([warmup], _marks(scenario, "warm-up")) if scenario.warmup_s else (),
        _times(pieces, _marks(scenario, "measured")),
    )
    return (Due(index=index, at_s=at_s) for index, at_s in enumerate(times))


def _traced(scenario: Scenario) -> Iterator[Due]:
    assert scenario.arrivals.trace is not None
    first_s = None
    for index, row in enumerate(read_trace(scenario.arrivals.trace)):
        first_s = row.arrival_s if first_s is None else first_s
        at_s = row.arrival_s - first_s
        if at_s >= scenario.seconds:
            return
        yield Due(index=index, at_s=at_s, prompt_tokens=row.prompt_tokens, output_tokens=row.output_tokens)


def _pieces(arrivals: Arrivals, seconds: float) -> list[Piece]:
    if arrivals.ramp is not None:
        return [Piece(0.0, seconds, arrivals.ramp.start, arrivals.ramp.end)]
    rates = arrivals.steps.rates if arrivals.steps is not None else [arrivals.poisson or arrivals.constant or 0.0]
    ends = [seconds * step / len(rates) for step in range(len(rates) + 1)]
    return [Piece(begin, end, rate, rate) for begin, end, rate in zip(ends, ends[1:], rates, strict=False)]


def _cut(piece: Piece) -> list[Piece]:
    """A ramp's stretches, as pieces."""
    at = [step / RAMP_STRETCHES for step in range(RAMP_STRETCHES + 1)]
    times = [piece.begin_s + (piece.end_s - piece.begin_s) * share for share in at]
    rates = [piece.start + (piece.end - piece.start) * share for share in at]
    return [Piece(*both) for both in zip(times, times[1:], rates, rates[1:], strict=False)]


def _first_rate(piece: Piece) -> float:
    """What the load begins with; where that is nothing, the mean of a ramp's first stretch."""
    return piece.start or (_cut(piece)[0].end / 2)


def _marks(scenario: Scenario, part: str) -> Iterator[float]:
    """On the axis of the cumulative rate: those of a Poisson process of rate 1, or 0, 1, 2, …"""
    arrivals = scenario.arrivals
    if arrivals.constant is not None or (arrivals.poisson is None and arrivals.process == "constant"):
        return map(float, count())
    return _poisson_marks(Random(f"{scenario.seed} {part}"))


def _poisson_marks(draw: Random) -> Iterator[float]:
    mark = 0.0
    while True:
        mark += draw.expovariate(1.0)
        yield mark


def _times(pieces: Iterable[Piece], marks: Iterator[float]) -> Iterator[float]:
    """The marks that fall into the pieces, as times."""
    mark, passed = next(marks), 0.0
    for piece in pieces:
        while mark < passed + piece.area - SLACK:
            yield piece.at_s(mark - passed)
            mark = next(marks)
        passed += piece.area
