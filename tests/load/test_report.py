"""Reports are looked at as a reader's browser would: their text, their tables, and what they would load."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from millrace.load.report import write_report, write_sweep_report
from millrace.load.report.series import MOST_POINTS, series
from millrace.load.report.summary import TITLES
from millrace.load.result import Fault, Result, Verification, decode, quantile_ms
from millrace.load.sweeping.knee import knee
from millrace.load.sweeping.points import Sweep
from tests.load.results import make_result, make_sweep

CHROMIUM = Path("/usr/bin/chromium")
TEXTS_OUTSIDE = """[...document.querySelectorAll('figure')].flatMap(figure => [...figure.querySelectorAll('text')]
    .filter(text => text.getBoundingClientRect().right > figure.getBoundingClientRect().right)
    .map(text => text.textContent))"""
"""Of figures, which would be cut or run into the neighbour."""
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What is in a page: every element with its attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.extend(data.split())

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def titles(self) -> set[str]:
        """Of its figures."""
        return {attributes["aria-label"] or "" for tag, attributes in self.elements if tag == "svg"}


def report_of(result: Result, folder: Path) -> Page:
    write_report(result, folder / "report.html")
    return Page((folder / "report.html").read_text())


def sweep_report_of(sweep: Sweep, folder: Path) -> Page:
    write_sweep_report(sweep, folder / "sweep.html")
    return Page((folder / "sweep.html").read_text())


def steps(*rates: float, **changes: Any) -> Result:
    given: dict[str, Any] = {"arrivals": {"steps": {"rates": list(rates)}}, "seconds": 8 * len(rates)}
    return make_result(**given | changes)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Two minutes that have everything: stages past what the service can do, errors, samples of the server."""
    result = steps(10, 20, 30, 40, 50, 60, 70, 80, errors=0.02, seconds=120)
    return report_of(result, tmp_path_factory.mktemp("loaded"))


def test_a_report_needs_nothing_but_itself(loaded: Page) -> None:
    for tag, attributes in loaded.elements:
        assert tag not in {"script", "iframe", "object", "embed"}
        for name in ("src", "href", "xlink:href", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert "@import" not in loaded.html
    assert not re.search(r"url\((?!#)", loaded.html)


def test_every_figure_is_there(loaded: Page) -> None:
    assert loaded.titles() == {
        "End to end, over time",
        "Time to first token (TTFT), over time",
        "Latency distribution",
        "Throughput against offered load",
        "End to end, against offered load",
        "Goodput, over time",
        "Errors, over time",
        "Requests in flight",
        "Tokens received",
        "Queue depth",
        "Batch size",
    }


def test_figures_take_their_colours_from_the_page(loaded: Page) -> None:
    used, given = (set(re.findall(pattern, loaded.html)) for pattern in (r"var\(--([\w-]+)\)", r"--([\w-]+):"))
    assert used <= given
    assert "#0a0b" not in loaded.html
    assert not re.search(r"(?:fill|stroke): #", loaded.html)


def test_no_two_elements_share_an_id_that_is_referred_to(loaded: Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in loaded.elements if "id" in attributes)
    assert all(count == 1 for count in ids.values()), ids.most_common(3)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', loaded.html)) <= set(ids)


def test_the_knee_is_named_where_throughput_stops_following_the_load(loaded: Page) -> None:
    found = re.search(r"stop following the load at ([\d.]+) requests/s", loaded.text)
    assert found
    assert float(found[1]) == pytest.approx(60, rel=0.1)


def test_a_run_with_one_load_has_no_curve_over_the_load(tmp_path: Path) -> None:
    page = report_of(make_result(seconds=12), tmp_path)
    assert not any("offered load" in title for title in page.titles())
    assert "Stages" not in page.text


def test_a_load_that_saturates_nothing_has_no_knee(tmp_path: Path) -> None:
    assert "there is no knee" in report_of(steps(5, 10, 15, 20), tmp_path).text


def test_a_stage_that_lags_by_chance_is_no_knee(tmp_path: Path) -> None:
    result = steps(1, 2, 3, 4)
    last = result.stages[-1].model_copy(update={"answered": result.stages[-1].due - 5})
    lagging = result.model_copy(update={"stages": [*result.stages[:-1], last]})
    assert knee([(stage.offered_rate, stage.throughput) for stage in lagging.stages]) is not None
    assert "there is no knee" in report_of(lagging, tmp_path).text


def test_the_same_result_gives_the_same_file(tmp_path: Path) -> None:
    result = make_result(seconds=12, errors=0.1)
    assert report_of(result, tmp_path / "a").html == report_of(result, tmp_path / "b").html


def test_a_run_of_two_minutes_and_many_stages_stays_small(loaded: Page) -> None:
    assert len(loaded.html) < 1_500_000


def test_text_of_others_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    result = make_result(
        seconds=12,
        name=HOSTILE,
        requests={"prompt": HOSTILE},
        notes=[HOSTILE],
        bottleneck=HOSTILE,
        versions={HOSTILE: HOSTILE},
        verification=Verification(fault_count=1, faults=[Fault(job_id=HOSTILE, kind=HOSTILE, detail=HOSTILE)]),
    )
    first = result.intervals[3].model_copy(update={"ended": {HOSTILE: 5, r"$\frac{": 1}})
    result = result.model_copy(
        update={
            "intervals": [*result.intervals[:3], first, *result.intervals[4:]],
            "total": result.total.model_copy(update={"reasons": {HOSTILE: 5}, "ended": {HOSTILE: 5}}),
        }
    )
    page = report_of(result, tmp_path)
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(HOSTILE) >= 10
    assert r"$\frac{" in page.text


def test_percentiles_are_those_of_the_histograms(tmp_path: Path) -> None:
    result = make_result(seconds=12)
    text = report_of(result, tmp_path).text
    for metric, title in TITLES.items():
        found = re.search(re.escape(title) + r" ([\d,]+) ([\d., ]+)", text)
        assert found, title
        assert int(found[1].replace(",", "")) == decode(result.total.histograms[metric]).total_count
        _, *shown = (float(figure) for figure in found[2].replace(",", "").split()[:7])
        expected = [quantile_ms(result.total.histograms[metric], share) for share in (0.5, 0.9, 0.95, 0.99, 0.999, 1)]
        assert shown == pytest.approx(expected, rel=0.01)


def test_limits_are_judged_at_the_slos_quantile(tmp_path: Path) -> None:
    slo = {"ttft_ms": 90, "tpot_ms": 30, "quantile": 0.5, "errors": 0.001}
    text = report_of(make_result(seconds=12, slo=slo, errors=0.2), tmp_path).text
    assert re.search(r"\(TTFT\), p50 ≤ 90 ms [\d.]+ ms met", text)
    assert re.search(r"not answered ≤ 0.1 % [\d.]+ % missed", text)
    strict = report_of(make_result(seconds=12, slo=slo | {"quantile": 0.99}), tmp_path).text
    assert re.search(r"\(TTFT\), p99 ≤ 90 ms [\d.]+ ms missed", strict)


def test_errors_are_counted_by_code_and_by_reason(tmp_path: Path) -> None:
    result = make_result(seconds=12, errors=0.3)
    text = report_of(result, tmp_path).text
    for counts in (result.total.ended, result.total.reasons):
        for name, count in counts.items():
            assert name == "OK" or f"{name} {count}" in text


def test_requests_that_never_ended_are_errors(tmp_path: Path) -> None:
    result = make_result(seconds=12)
    total = result.total.model_copy(update={"due": result.total.due + 7})
    assert "before the drain was over 7" in report_of(result.model_copy(update={"total": total}), tmp_path).text


def test_a_run_without_errors_shows_none(tmp_path: Path) -> None:
    page = report_of(make_result(seconds=12), tmp_path)
    assert "Errors, over time" not in page.titles()
    assert "Code requests" not in page.text


def test_the_generator_as_bottleneck_and_faults_stand_before_all_figures(tmp_path: Path) -> None:
    fault = Fault(job_id="job-17", kind="gap", detail="offset 7 after 5")
    checked = Verification(streams=900, deltas=9000, fault_count=140, faults=[fault])
    page = report_of(make_result(seconds=12, bottleneck="It used 97 % of its core.", verification=checked), tmp_path)
    before = page.text[: page.text.index("Offered")]
    assert "It used 97 % of its core." in before
    assert "140 faults" in before
    assert "job-17 gap: offset 7 after 5" in before
    assert "and 139 more" in before


def test_a_run_without_samples_of_the_server_says_so(tmp_path: Path) -> None:
    page = report_of(make_result(seconds=12, server=False), tmp_path)
    assert not {"Queue depth", "Batch size"} & page.titles()
    assert "/metrics were not read" in page.text


def test_every_setting_is_told(loaded: Page) -> None:
    for name in ("arrivals.steps.rates", "requests.max_tokens", "slo.ttft_ms", "warmup_s", "generators", "seed"):
        assert name in loaded.text


@pytest.mark.parametrize(
    "changes",
    [
        {"intervals": [], "stages": [], "server": False},
        {"errors": 1.0},
        {"arrivals": {"callers": 3}, "slo": None},
        {"warmup_s": 0, "seconds": 1},
        {"task": "infer"},
    ],
    ids=["nothing measured", "nothing answered", "closed loop", "one second", "tensors"],
)
def test_poor_runs_have_a_report_too(changes: dict[str, Any], tmp_path: Path) -> None:
    page = report_of(make_result(**{"seconds": 6} | changes), tmp_path)
    assert "How it was measured" in page.text
    assert "nan" not in page.words


def test_a_long_run_is_drawn_in_few_points() -> None:
    intervals = [one.model_copy(update={"at_s": place}) for place, one in enumerate([*make_result().intervals] * 60)]
    grouped = series(make_result().model_copy(update={"intervals": intervals}))
    assert len(grouped.groups) <= MOST_POINTS
    assert grouped.sum(lambda one: one.due).sum() == sum(one.due for one in intervals)


@pytest.fixture(scope="module")
def swept() -> Sweep:
    return make_sweep()


def test_a_sweeps_report_names_the_highest_rate_that_meets_the_slo(swept: Sweep, tmp_path: Path) -> None:
    page = sweep_report_of(swept, tmp_path)
    assert f"Best rate {swept.best_rate:.3g} /s highest that met the SLO" in page.text
    assert [attributes.get("class") for tag, attributes in page.elements if tag == "tr"].count("best") == 1
    assert "misses ttft" in page.text
    assert {"Throughput against offered load", "Throughput against callers"} <= page.titles()
    assert "script" not in {tag for tag, _ in page.elements}


def test_a_sweep_that_always_missed_says_so(swept: Sweep, tmp_path: Path) -> None:
    changes = {"best_rate": None, "knee": None, "closed": swept.closed[:1], "notes": [HOSTILE]}
    page = sweep_report_of(swept.model_copy(update=changes), tmp_path)
    assert "even the lowest missed" in page.text
    assert "best" not in [attributes.get("class") for tag, attributes in page.elements if tag == "tr"]
    assert HOSTILE in page.text


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's Chromium")
def test_a_browser_shows_it_without_scrolling_sideways_or_complaints(loaded: Page, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(loaded.html)
    widths: list[list[int]] = []
    said: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 800, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())
        for width in (800, 1200):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(TEXTS_OUTSIDE) == []
            widths.append(page.evaluate("[...document.querySelectorAll('svg')].map(one => one.clientWidth)"))
        browser.close()
    narrow, wide = widths
    assert len(narrow) == 11
    assert min(narrow) > 700
    assert 500 < min(wide) <= max(wide) < 560
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
