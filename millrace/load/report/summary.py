"""What a report says in figures and words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millrace.load.buckets import stack
from millrace.load.compare import flatten
from millrace.load.report.style import NOTHING, number
from millrace.load.result import OK, Counts, Metric, Result, Stage, quantile_ms
from millrace.load.scenario import PIECES, Scenario, Slo
from millrace.load.sweeping.points import Point, Sweep

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
TITLES: dict[Metric, str] = {
    "e2e": "End to end",
    "ttft": "Time to first token (TTFT)",
    "tpot": "Time per output token (TPOT)",
    "itl": "Inter-token latency (ITL)",
    "late": "Sent late by the generator",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A figure that a reader should see first."""

    name: str
    figure: str
    unit: str = ""
    remark: str = ""
    tone: str = ""
    """"good", "bad", or neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One of the SLO's, and what was measured."""

    name: str
    allowed: str
    measured: str
    met: bool | None
    """None: nothing was measured."""


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def token_unit(task: str) -> str:
    """What `tokens` are of this task."""
    return PIECES.get(task, "rows")


def tiles(result: Result) -> Iterator[Tile]:
    total, slo = result.total, result.scenario.slo
    callers = result.scenario.arrivals.callers
    offered = number(total.offered_rate)
    remark = f"a closed loop of {callers:,} callers" if callers else f"{total.due:,} requests"
    yield Tile(name="Sent" if callers else "Offered", figure=offered, unit="/s", remark=remark)
    yield Tile(name="Answered", figure=number(total.throughput), unit="/s", remark=f"{total.ok:,} OK")
    share = total.good / total.due if total.due else 0.0
    remark = f"{percent(share)} good" if slo else "no SLO: those OK"
    yield Tile(name="Goodput", figure=number(total.goodput), unit="/s", remark=remark)
    yield from _latency_tiles(total, slo)
    unit = token_unit(result.task)
    yield Tile(name=unit.capitalize(), figure=number(_tokens_per_second(result)), unit="/s", remark="received")
    failed = total.due - total.ok
    tone = "bad" if failed > (slo or Slo()).errors * max(total.due, 1) else ""
    remark = percent(failed / total.due if total.due else 0.0)
    yield Tile(name="Errors", figure=f"{failed:,}", remark=remark, tone=tone)


def _latency_tiles(total: Stage, slo: Slo | None) -> Iterator[Tile]:
    names: dict[Metric, str] = {"e2e": "p99 end to end", "ttft": "p99 TTFT", "tpot": "p99 TPOT"}
    for metric, name in names.items():
        value = quantile_ms(total.histograms.get(metric), 0.99)
        if value is not None:
            seconds = value >= 10_000
            figure, unit = (number(value / 1000), "s") if seconds else (number(value), "ms")
            yield Tile(name=name, figure=figure, unit=unit, remark=_against(getattr(slo, f"{metric}_ms", None)))


def _against(limit_ms: float | None) -> str:
    return f"limit {limit_ms:,g} ms" if limit_ms else ""


def _tokens_per_second(result: Result) -> float:
    """Received while requests came."""
    measured = [one for one in result.intervals if 0 <= one.at_s + one.seconds / 2 < result.scenario.seconds]
    seconds = sum(one.seconds for one in measured)
    return sum(one.tokens for one in measured) / seconds if seconds else 0.0


def limits(total: Stage, slo: Slo) -> Iterator[Limit]:
    """What was measured at the SLO's quantile, limit by limit."""
    given: tuple[tuple[Metric, float | None], ...] = (("ttft", slo.ttft_ms), ("tpot", slo.tpot_ms), ("e2e", slo.e2e_ms))
    for metric, allowed in given:
        if allowed is not None:
            value = quantile_ms(total.histograms.get(metric), slo.quantile)
            yield Limit(
                name=f"{TITLES[metric]}, p{100 * slo.quantile:g}",
                allowed=f"≤ {allowed:,g} ms",
                measured=number(value, "ms"),
                met=None if value is None else value <= allowed,
            )
    share = 1 - total.ok / total.due if total.due else None
    yield Limit(
        name="Refused, failed or not answered",
        allowed=f"≤ {percent(slo.errors)}",
        measured=NOTHING if share is None else percent(share),
        met=None if share is None else share <= slo.errors,
    )


def percentiles(total: Stage) -> Iterator[list[str]]:
    """Name, count, then milliseconds: mean, the shares, the highest."""
    for metric, title in TITLES.items():
        held = stack([total.histograms.get(metric)])
        count = int(held.totals()[0])
        if count:
            figures = [held.mean()[0], *held.quantiles([*SHARES.values(), 1.0])[:, 0]]
            yield [title, f"{count:,}", *(number(float(figure)) for figure in figures)]


def errors(total: Counts) -> dict[str, list[tuple[str, int, str]]]:
    """By code and by reason, the most frequent first: name, count, share of what was due."""
    codes = {code: count for code, count in total.ended.items() if code != OK and count}
    if total.due > total.all_ended:
        codes["not answered before the drain was over"] = total.due - total.all_ended
    return {"Code": _ranked(codes, total.due), "Reason": _ranked(total.reasons, total.due)}


def _ranked(counts: Mapping[str, int], due: int) -> list[tuple[str, int, str]]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(name, count, percent(count / due) if due else NOTHING) for name, count in ranked]


def stages(given: Sequence[Stage]) -> Iterator[list[str]]:
    for stage in given:
        shown = [quantile_ms(stage.histograms.get(metric), share) for metric, share in STAGE_FIGURES]
        yield [
            f"{stage.begin_s:,.4g} – {stage.end_s:,.4g}",
            f"{stage.callers} callers" if stage.callers else number(stage.rate),
            *(number(rate) for rate in (stage.offered_rate, stage.throughput, stage.goodput)),
            f"{stage.due - stage.ok:,}",
            *(number(figure) for figure in shown),
        ]


STAGE_FIGURES: tuple[tuple[Metric, float], ...] = (("e2e", 0.5), ("e2e", 0.99), ("ttft", 0.99), ("tpot", 0.99))
STAGE_COLUMNS = (
    *("seconds", "planned, /s", "due, /s", "answered, /s", "good, /s", "errors"),
    *("e2e p50, ms", "e2e p99, ms", "TTFT p99, ms", "TPOT p99, ms"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """A sweep's run."""

    cells: Sequence[str]
    missed: str
    """Names of the limits that it missed."""
    is_best: bool


def points(given: Sequence[Point], best: float | None) -> Iterator[PointRow]:
    for point, (_, *cells) in zip(given, stages([point.stage for point in given]), strict=True):
        missed = ", ".join(name for name, met in point.met.items() if not met)
        yield PointRow(cells=cells, missed=missed, is_best=best is not None and point.stage.offered_rate == best)


def sweep_tiles(sweep: Sweep) -> Iterator[Tile]:
    best = sweep.best_rate
    remark = "highest that met the SLO" if best else "even the lowest missed the SLO"
    yield Tile(name="Best rate", figure=number(best), unit="/s", remark=remark, tone="good" if best else "bad")
    yield Tile(name="Knee", figure=number(sweep.knee), unit="/s" if sweep.knee else "", remark="of the open loops")
    yield Tile(name="Saturation", figure=number(sweep.saturation), unit="/s", remark="of the closed loop")
    yield Tile(name="Slots", figure=f"{sweep.slots:,}", remark="callers that saturate it")
    service_s = sweep.service.e2e.mean_s
    yield Tile(name="Service time", figure=number(1000 * service_s), unit="ms", remark="where none waits, mean")
    yield Tile(name="Workers", figure=f"{sweep.workers:,}", remark="ready for the model")


def settings(scenario: Scenario) -> list[tuple[str, str]]:
    """All of them by their path in the file; those that are not set come last, together."""
    rows = table(flatten(scenario.model_dump(mode="json", by_alias=True)))
    unset = ", ".join(name for name, value in rows if value == NOTHING)
    return [*(row for row in rows if row[1] != NOTHING), ("not set", unset or "none")]


def table(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, NOTHING if value in (None, "", [], {}) else str(value)) for name, value in given.items()]
