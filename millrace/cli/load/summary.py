"""What a load test found, on a screen."""

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.load.result import OK, Metric, Result, Stage, Verification, decode, quantile_ms
from millrace.load.scenario import PIECES
from millrace.load.sweeping.points import limits
from millrace.load.words import figure, heading

NAMES: dict[Metric, str] = {"e2e": "end to end", "ttft": "TTFT", "tpot": "TPOT", "itl": "ITL"}
QUANTILES = (0.5, 0.9, 0.99)
FAULTS_SHOWN = 5


def summary(result: Result) -> Group:
    return Group(*_parts(result))


def misses(result: Result) -> list[str]:
    """What of the SLO was not met, in words; nothing without one."""
    slo, total = result.scenario.slo, result.total
    if slo is None:
        return []
    found = []
    for metric, limit in limits(slo).items():
        value = quantile_ms(total.histograms.get(metric), slo.quantile)
        if limit is not None and value is not None and value > limit:
            found.append(f"p{100 * slo.quantile:g} of {NAMES[metric]} is {figure(value)} ms, above {limit:g} ms")
    if (share := error_share(total)) > slo.errors:
        found.append(f"{share:.2%} of the requests failed, above {slo.errors:.2%}")
    return found


def error_share(stage: Stage) -> float:
    """Of what was due: refused, failed or not answered in time."""
    return 1 - stage.ok / stage.due if stage.due else 0.0


def _parts(result: Result) -> Iterator[RenderableType]:
    yield Text.assemble(heading(result.scenario), f", for {result.scenario.seconds:g} s")
    yield _counts(result)
    if len(result.stages) > 1:
        yield _stages(result)
    if any(metric in result.total.histograms for metric in NAMES):
        yield _latencies(result)
    if result.total.ok == 0:
        yield Text("Not one request was answered.", "red")
    if result.scenario.slo is not None:
        yield from _slo(misses(result))
    if result.verification is not None:
        yield from _verification(result.verification)
    if result.bottleneck:
        yield Text(result.bottleneck, "yellow")
    for note in result.notes:
        yield Text(note, "dim")


def _counts(result: Result) -> Table:
    total = result.total
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    for title in ("requests", "a second", "share"):
        table.add_column(title, justify="right")

    def row(name: str, count: int, rate: float | None, style: str = "") -> None:
        share = f"{count / total.due:.2%}" if total.due else ""
        table.add_row(name, f"{count:,}", "" if rate is None else figure(rate), share, style=style)

    row("offered", total.due, total.offered_rate)
    row("answered", total.ok, total.throughput)
    if result.scenario.slo is not None:
        row("within the SLO", total.good, total.goodput)
    for code, count in _most(total.ended):
        if code != OK:
            row(code, count, None, "red")
    for reason, count in _most(total.reasons):
        if reason not in total.ended:
            table.add_row(f"  {reason}", f"{count:,}", style="red")
    tokens = PIECES.get(result.task, "rows")
    table.add_row(tokens, f"{total.tokens:,}", figure(total.tokens / total.seconds))
    return table


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda one: -one[1])


def _stages(result: Result) -> Table:
    """A row for each rate, or for each part of a ramp."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("from s", "offered/s", "answered/s", "good/s", "p50 ms", "p99 ms", "errors"):
        table.add_column(title, justify="right")
    for stage in result.stages:
        quantiles = (quantile_ms(stage.histograms.get("e2e"), share) for share in (0.5, 0.99))
        table.add_row(
            f"{stage.begin_s:.0f}",
            *map(figure, (stage.offered_rate, stage.throughput, stage.goodput)),
            *("–" if value is None else figure(value) for value in quantiles),
            f"{error_share(stage):.2%}",
        )
    return table


def _latencies(result: Result) -> Table:
    """In milliseconds, beside the SLO's limits."""
    slo = result.scenario.slo
    limit_of = {} if slo is None else limits(slo)
    table = Table("ms", box=SIMPLE_HEAD, pad_edge=False)
    for title in (*(f"p{100 * share:g}" for share in QUANTILES), "most"):
        table.add_column(title, justify="right")
    if slo is not None:
        table.add_column(f"limit of p{100 * slo.quantile:g}", justify="right")
    for metric in NAMES:
        held = decode(result.total.histograms.get(metric))
        if not held.total_count:
            continue
        values = [held.get_value_at_percentile(100 * share) for share in QUANTILES] + [held.get_max_value()]
        limit = limit_of.get(metric)
        table.add_row(NAMES[metric], *(figure(value / 1000) for value in values), *([f"{limit:g}"] if limit else []))
    return table


def _slo(missed: list[str]) -> Iterator[Text]:
    if not missed:
        yield Text("The SLO was met.", "green")
    for sentence in missed:
        yield Text(f"The SLO was not met: {sentence}.", "red")


def _verification(found: Verification) -> Iterator[Text]:
    what = f"{found.streams:,} streams with {found.deltas:,} deltas verified"
    if not found.fault_count:
        yield Text(f"{what}, no fault.", "green")
        return
    yield Text(f"{what}: {found.fault_count:,} faults.", "red")
    for fault in found.faults[:FAULTS_SHOWN]:
        yield Text(f"  {fault.job_id}  {fault.kind}: {fault.detail}", "red")
