"""What a load test shows while it runs: a view on a terminal, or a line each few seconds elsewhere."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hdrh.histogram import HdrHistogram
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from millrace.load.result import OK, Interval, Metric, decode, histogram
from millrace.load.scenario import Scenario
from millrace.load.words import clock, figure, heading, sparkline

RECENT, REMEMBERED = 5, 60
"""Intervals in the column of the last seconds, and in a sparkline."""
REDRAWS, LINE_S = 4, 5.0
SHOWN: dict[Metric, str] = {"e2e": "e2e", "ttft": "TTFT", "tpot": "TPOT", "itl": "ITL"}
BESIDE_SPARKS, LEAST_SPARK = 60, 8
"""Columns that the rest of the view takes; and a sparkline, unless there is none."""
NONE = "–"
Watch = Callable[[Interval], None]
Held = Mapping[Metric, HdrHistogram]


@dataclass(slots=True)
class Tally:
    """Some intervals together."""

    seconds: float = 0.0
    due: int = 0
    answered: int = 0
    tokens: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    held: dict[Metric, HdrHistogram] = field(default_factory=dict)

    def add(self, interval: Interval, held: Held, *, timed: bool = True) -> None:
        """Rates are of the intervals that are `timed`; latencies and errors of all."""
        if timed:
            self.seconds += interval.seconds
            self.due += interval.due
            self.answered += interval.ok
            self.tokens += interval.tokens
        self.ended.update(interval.ended)
        for metric, one in held.items():
            self.held.setdefault(metric, histogram()).add(one)

    def rate(self, count: int) -> str:
        return figure(count / self.seconds) if self.seconds else NONE

    def quantiles(self, metric: Metric) -> str:
        """The median and the 99th percentile, in milliseconds."""
        held = self.held.get(metric)
        if held is None or not held.total_count:
            return NONE
        found = held.get_percentile_to_value_dict([50, 99])
        return f"{figure(found[50] / 1000)} / {figure(found[99] / 1000)}"

    @property
    def failed(self) -> Counter[str]:
        return Counter({code: count for code, count in self.ended.items() if code != OK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Of the view's table."""

    name: str
    recent: str
    whole: str
    series: Sequence[float] = ()
    style: str = ""


class Course:
    """How far a load test is, and what it has found so far."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.whole = Tally()
        """Without the warm-up. What drains counts for latencies and errors, not for rates."""
        self.in_flight = 0
        self.rows: Sequence[Row] = ()
        self._recent: deque[tuple[Interval, Held]] = deque(maxlen=RECENT)
        self._due: deque[float] = deque(maxlen=REMEMBERED)
        self._answered: deque[float] = deque(maxlen=REMEMBERED)
        self._p99_ms: deque[float] = deque(maxlen=REMEMBERED)
        self._heard: tuple[float, float] | None = None

    def add(self, interval: Interval) -> None:
        """Called from one thread; what it leaves may be read in another."""
        held = {metric: decode(text) for metric, text in interval.histograms.items() if metric in SHOWN}
        end_s = interval.at_s + interval.seconds
        if end_s > 0:
            self.whole.add(interval, held, timed=interval.at_s < self.scenario.seconds)
        self._recent.append((interval, held))
        self._due.append(interval.due / interval.seconds)
        self._answered.append(interval.ok / interval.seconds)
        self._p99_ms.append(held["e2e"].get_value_at_percentile(99) / 1000 if "e2e" in held else 0.0)
        self.in_flight = interval.in_flight
        self.rows = self._rows()
        self._heard = end_s, time.monotonic()

    def recent(self) -> Tally:
        tally = Tally()
        for interval, held in self._recent:
            tally.add(interval, held)
        return tally

    def _rows(self) -> list[Row]:
        recent, whole = self.recent(), self.whole

        def rate(name: str, one: int, other: int, series: Sequence[float] = ()) -> Row:
            return Row(name=name, recent=recent.rate(one), whole=whole.rate(other), series=tuple(series))

        rows = [
            rate("offered, requests/s", recent.due, whole.due, self._due),
            rate("answered, requests/s", recent.answered, whole.answered, self._answered),
            Row(name="in flight", recent=f"{self.in_flight:,}", whole=""),
        ]
        if "tpot" in whole.held:
            rows.append(rate("tokens/s", recent.tokens, whole.tokens))
        for metric, name in SHOWN.items():
            if metric in whole.held and (metric == "e2e" or "tpot" in whole.held):
                series = tuple(self._p99_ms) if metric == "e2e" else ()
                of = {"recent": recent.quantiles(metric), "whole": whole.quantiles(metric)}
                rows.append(Row(name=f"{name}, p50 / p99 ms", series=series, **of))
        for code in sorted(recent.failed | whole.failed):
            recently, once = recent.ended[code], whole.ended[code]
            rows.append(Row(name=code, recent=f"{recently:,}", whole=f"{once:,}", style="red"))
        return rows

    @property
    def now_s(self) -> float | None:
        """Since the begin of measuring; None before anything was heard."""
        return None if self._heard is None else self._heard[0] + time.monotonic() - self._heard[1]

    @property
    def phase(self) -> str:
        now_s = self.now_s
        if now_s is None:
            return "starting"
        return "warming up" if now_s < 0 else "measuring" if now_s < self.scenario.seconds else "draining"


class View:
    """The picture of a course on a terminal, as it is when it is drawn."""

    def __init__(self, course: Course) -> None:
        self._course = course

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield heading(self._course.scenario)
        yield self._bar()
        if self._course.rows:
            yield self._table(min(options.max_width - BESIDE_SPARKS, REMEMBERED))

    def _bar(self) -> Table:
        course, scenario = self._course, self._course.scenario
        total, now_s = scenario.warmup_s + scenario.seconds, course.now_s
        done = 0.0 if now_s is None else min(now_s + scenario.warmup_s, total)
        left = f"{course.in_flight} in flight" if course.phase == "draining" else f"{clock(total - done)} left"
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(width=10)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(Text(course.phase), ProgressBar(total=total, completed=done, pulse=now_s is None), Text(left))
        return row

    def _table(self, width: int) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("", no_wrap=True, min_width=22)
        table.add_column(f"last {RECENT} s", justify="right", no_wrap=True, min_width=14)
        table.add_column("whole", justify="right", no_wrap=True, min_width=14)
        has_sparks = width >= LEAST_SPARK
        if has_sparks:
            table.add_column(f"last {width} s, p99", style="cyan", no_wrap=True, min_width=width)
        for row in self._course.rows:
            sparks = (sparkline(row.series, width),) * has_sparks
            table.add_row(row.name, row.recent, row.whole, *sparks, style=row.style)
        return table


class Lines:
    """A course as lines of text, each five seconds and where the phase changes."""

    def __init__(self, course: Course, console: Console) -> None:
        self._course, self._console = course, console
        self._next_s = float("-inf")
        self._phase = ""

    def add(self, interval: Interval) -> None:
        if not self._phase:
            self._console.print(heading(self._course.scenario), soft_wrap=True, highlight=False)
        self._course.add(interval)
        end_s = interval.at_s + interval.seconds
        if end_s >= self._next_s or self._course.phase != self._phase:
            self._next_s, self._phase = end_s + LINE_S, self._course.phase
            self._console.print(self._line(end_s), soft_wrap=True, highlight=False)

    def _line(self, end_s: float) -> Text:
        recent = self._course.recent()
        parts = [
            f"{self._phase:<10} {end_s:6.0f} s",
            f"offered {recent.rate(recent.due)}/s",
            f"answered {recent.rate(recent.answered)}/s",
            f"in flight {self._course.in_flight}",
        ]
        if "e2e" in recent.held:
            parts.append(f"p50 / p99 {recent.quantiles('e2e')} ms")
        failed = ", ".join(f"{code} {count}" for code, count in sorted(self._course.whole.failed.items()))
        return Text("  ".join([*parts, failed]).rstrip(), "red" if recent.failed else "")


@contextmanager
def watching(scenario: Scenario, console: Console, *, live: bool) -> Iterator[Watch]:
    """What is to be told of each interval and shows them on the console: `live`, where that is a terminal, or as lines.
    The view is gone afterwards."""
    course = Course(scenario)
    if live and console.is_terminal:
        with Live(View(course), console=console, refresh_per_second=REDRAWS, transient=True):
            yield course.add
    else:
        yield Lines(course, console).add
