"""What is on the screen at the end of a load test, and of a sweep."""

from io import StringIO
from typing import Any

from rich.console import Console, RenderableType

from millrace.cli.load.summary import misses, summary
from millrace.cli.load.sweep import conclusion, sweep_table
from millrace.load.result import Fault, Verification
from millrace.load.sweeping.points import Moments, Service, Sweep, judge
from millrace.load.words import figure
from tests.load.results import make_result


def printed(what: RenderableType, width: int = 100) -> str:
    console = Console(file=StringIO(), record=True, width=width)
    console.print(what)
    return console.export_text()


def cells(text: str, name: str) -> list[str]:
    """Of the row that begins so."""
    line = next(line.strip() for line in text.splitlines() if line.strip().startswith(name))
    return line.removeprefix(name).split()


def make_sweep(rates: list[float], **changes: Any) -> Sweep:
    """Open loops that meet the SLO below the capacity of the service which make_result draws."""
    results = [make_result(seconds=5, arrivals={"poisson": rate}) for rate in rates]
    slo = results[0].scenario.slo
    assert slo is not None
    points = [judge(result, slo, service_s=0.1) for result in results]
    met = [point.stage.offered_rate for point in points if point.meets]
    moments = Moments(mean_s=0.1, scv=1.0)
    return Sweep(
        schema="millrace.sweep/1",
        scenario=results[0].scenario,
        slo=slo,
        started_at="2026-01-02T03:04:05Z",
        task="generate",
        closed=points[:1],
        points=points,
        saturation=60.0,
        slots=16,
        knee=None,
        best_rate=max(met, default=None),
        workers=2,
        service=Service(requests=50, e2e=moments, tokens=50, prompt_tokens=10),
        hardware={},
        versions={},
        **changes,
    )


def test_counts_are_given_with_rates_and_shares() -> None:
    result = make_result(seconds=5, errors=0.2)
    text, total = printed(summary(result)), result.total
    assert cells(text, "offered")[0] == str(total.due)
    assert cells(text, "answered") == [str(total.ok), f"{total.answered / 5:.1f}", f"{total.ok / total.due:.2%}"]
    assert cells(text, "RESOURCE_EXHAUSTED")[0] == str(total.ended["RESOURCE_EXHAUSTED"])
    assert cells(text, "QUEUE_FULL") == [str(total.reasons["QUEUE_FULL"])]
    assert cells(text, "tokens")[0] == f"{total.tokens:,}"


def test_a_load_of_several_rates_has_a_row_for_each() -> None:
    result = make_result(seconds=6, arrivals={"steps": {"rates": [5, 10, 20]}})
    text = printed(summary(result))
    for stage in result.stages:
        assert cells(text, f"{stage.begin_s:.0f}  ")[:2] == [figure(stage.offered_rate), figure(stage.throughput)]
    assert "from s" not in printed(summary(make_result(seconds=5)))


def test_latencies_stand_beside_their_limits() -> None:
    text = printed(summary(make_result(seconds=5)))
    assert "limit of p99" in text
    assert [cells(text, name)[4:] for name in ("end to end", "TTFT", "TPOT", "ITL")] == [[], ["500"], ["30"], []]
    assert "The SLO was met." in text


def test_what_was_not_measured_is_not_shown() -> None:
    result = make_result(seconds=5, task="classify", slo=None)
    only = {"e2e": result.total.histograms["e2e"]}
    text = printed(summary(result.model_copy(update={"total": result.total.model_copy(update={"histograms": only})})))
    assert ("end to end" in text, "TTFT" in text, "SLO" in text) == (True, False, False)
    assert cells(text, "rows")


def test_each_limit_that_is_missed_is_said() -> None:
    result = make_result(seconds=5, slower=20.0, errors=0.3)
    assert [sentence.split(" is ")[0].split(" of the")[-1] for sentence in misses(result)][:2] == [
        "p99 of TTFT",
        "p99 of TPOT",
    ]
    assert "requests failed, above 1.00%" in misses(result)[2]
    assert printed(summary(result)).count("The SLO was not met") == 3
    assert misses(make_result(seconds=5, slo=None)) == []


def test_faults_and_the_generators_own_limit_are_said() -> None:
    faults = [Fault(job_id=f"job-{number}", kind="LOST", detail="3 after 1") for number in range(9)]
    result = make_result(
        seconds=5,
        verification=Verification(streams=40, deltas=400, faults=faults, fault_count=9),
        bottleneck="The generator itself may be what was measured: it was late.",
        notes=["No metrics."],
    )
    text = printed(summary(result))
    assert "40 streams with 400 deltas verified: 9 faults." in text
    assert text.count("LOST: 3 after 1") == 5
    assert "it was late." in text
    assert "No metrics." in text


def test_a_summary_fits_a_terminal_of_80_columns() -> None:
    assert max(map(len, printed(summary(make_result(seconds=5, errors=0.1)), width=80).splitlines())) <= 80


def test_a_sweep_shows_each_rate_and_the_highest_that_meets_the_slo() -> None:
    sweep = make_sweep([10, 30, 90])
    text = printed(sweep_table(sweep))
    rows = [line for line in text.splitlines() if "met" in line or "misses" in line]
    assert [line.split()[-1] == "met" for line in rows] == [True, True, False]
    assert f"meets the SLO is {sweep.best_rate:.1f} requests/s, with 2 workers" in printed(conclusion(sweep))


def test_a_sweep_without_a_rate_that_meets_the_slo_says_so() -> None:
    assert "Even the lowest rate missed the SLO" in printed(conclusion(make_sweep([150])))
