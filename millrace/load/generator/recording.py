"""What one process saw of its requests: a tally that is open for about a second, and one for each stage.

Everything here runs for each message that is received, in the process that measures: a message costs about two
microseconds, a request about ten.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hdrh.histogram import HdrHistogram

from millrace.load.arrivals import Stretch
from millrace.load.result import LEAST_US, METRICS, MOST_US, OK, Metric, Stage, encode, histogram
from millrace.load.scenario import Slo

NO_LIMITS = Slo()


class Tally:
    """Counts and histograms that are being filled."""

    __slots__ = ("answered", "due", "ended", "good", "histograms", "prompt_tokens", "reasons", "tokens")

    def __init__(self) -> None:
        self.due = self.good = self.tokens = self.prompt_tokens = self.answered = 0
        self.ended: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.histograms: dict[Metric, HdrHistogram] = {}

    def record(self, metric: Metric, value_us: int, count: int = 1) -> None:
        held = self.histograms.get(metric)
        if held is None:
            held = self.histograms[metric] = histogram()
        held.record_value(value_us, count)

    def counts(self) -> dict[str, Any]:
        """The fields of `Counts`."""
        names = ("due", "good", "tokens", "prompt_tokens")
        return {name: getattr(self, name) for name in names} | {"ended": self.ended, "reasons": self.reasons}

    def encoded(self) -> dict[Metric, str]:
        return {metric: encode(self.histograms[metric]) for metric in METRICS if metric in self.histograms}


@dataclass(slots=True)
class Request:
    """One that is under way, or over. Times are seconds from the begin of measuring."""

    due_s: float
    stage: Tally | None
    """None for a request of the warm-up, which is counted and not measured."""
    first_s: float | None = None
    last_s: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """An interval that is over."""

    at_s: float
    seconds: float
    in_flight: int
    tally: Tally


class Recording:
    """`stretches` follow each other without gaps from 0 to the end of measuring."""

    def __init__(self, stretches: Sequence[Stretch], slo: Slo | None, *, streamed: bool = True) -> None:
        """`streamed`: answers come piece by piece, so that it counts when."""
        self._stretches, self._slo, self._streamed = stretches, slo or NO_LIMITS, streamed
        self._begins = [one.begin_s for one in stretches]
        self._stages = [Tally() for _ in stretches]
        self._open = Tally()
        self.in_flight = 0
        self.sent = 0
        """Of those that were due while it was measured."""

    def begin(self, due_s: float) -> Request:
        """A request is due; every one that begins must `end`."""
        stage = self._stage(due_s)
        self._open.due += 1
        if stage is not None:
            stage.due += 1
        self.in_flight += 1
        return Request(due_s, stage)

    def send(self, request: Request, now_s: float) -> None:
        if request.stage is not None:
            self.sent += 1
            self._record(request.stage, "late", now_s - request.due_s)

    def receive(self, request: Request, now_s: float, tokens: int, prompt_tokens: int) -> None:
        """A message with so many new tokens."""
        request.prompt_tokens = prompt_tokens or request.prompt_tokens
        if not tokens:
            return
        stage, self._open.tokens = request.stage, self._open.tokens + tokens
        if stage is not None:
            stage.tokens += tokens
            if self._streamed:
                self._record_arrival(request, stage, now_s, tokens)
        if request.first_s is None:
            request.first_s = now_s
        request.last_s = now_s
        request.tokens += tokens

    def end(self, request: Request, now_s: float, code: str = OK, reason: str = "") -> None:
        """Latencies are of those that ended OK; a request that failed fast is no fast one."""
        self.in_flight -= 1
        good = code == OK and self._is_good(request, now_s)
        for tally in (self._open, request.stage):
            if tally is not None:
                tally.ended[code] += 1
                tally.good += good
                tally.prompt_tokens += request.prompt_tokens
                if code != OK:
                    tally.reasons[reason or code] += 1
        if code != OK:
            return
        ended_in = self._stage(now_s)
        if ended_in is not None:
            ended_in.answered += 1
        if request.stage is not None:
            self._record(request.stage, "e2e", now_s - request.due_s)
            if self._streamed and request.first_s is not None and request.tokens > 1:
                self._record(request.stage, "tpot", _tpot_s(request, now_s))

    def close(self, at_s: float, end_s: float) -> Closed:
        """What was tallied since the last one."""
        tally, self._open = self._open, Tally()
        return Closed(at_s=at_s, seconds=end_s - at_s, in_flight=self.in_flight, tally=tally)

    def stages(self) -> list[Stage]:
        return [
            Stage(
                begin_s=stretch.begin_s,
                end_s=stretch.end_s,
                rate=stretch.rate,
                callers=stretch.callers,
                answered=tally.answered,
                histograms=tally.encoded(),
                **tally.counts(),
            )
            for stretch, tally in zip(self._stretches, self._stages, strict=True)
        ]

    def _record_arrival(self, request: Request, stage: Tally, now_s: float, tokens: int) -> None:
        if request.first_s is None:
            self._record(stage, "ttft", now_s - request.due_s)
        else:
            self._record(stage, "itl", (now_s - request.last_s) / tokens, tokens)

    def _record(self, stage: Tally, metric: Metric, seconds: float, count: int = 1) -> None:
        value_us = min(max(int(seconds * 1e6), LEAST_US), MOST_US)
        stage.record(metric, value_us, count)
        self._open.record(metric, value_us, count)

    def _stage(self, at_s: float) -> Tally | None:
        if not 0 <= at_s < self._stretches[-1].end_s:
            return None
        return self._stages[bisect_right(self._begins, at_s) - 1]

    def _is_good(self, request: Request, end_s: float) -> bool:
        """Whether it keeps the limits; without a token the first is as late as the end."""
        slo, first_s = self._slo, end_s if request.first_s is None else request.first_s
        return (
            _within(end_s - request.due_s, slo.e2e_ms)
            and _within(first_s - request.due_s, slo.ttft_ms)
            and (request.tokens < 2 or _within(_tpot_s(request, end_s), slo.tpot_ms))
        )


def _tpot_s(request: Request, end_s: float) -> float:
    assert request.first_s is not None
    return (end_s - request.first_s) / (request.tokens - 1)


def _within(seconds: float, limit_ms: float | None) -> bool:
    return limit_ms is None or seconds * 1000 <= limit_ms
