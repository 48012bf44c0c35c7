"""What is shown while a load test runs: intervals go in, text comes out."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from millrace.load.live import Course, View, watching
from millrace.load.result import Interval, encode, histogram
from millrace.load.scenario import Scenario, make_scenario
from millrace.load.words import figure, sparkline

SCENARIO: dict[str, Any] = {"name": "chat", "model": "pycode", "arrivals": {"poisson": 20}, "seconds": 60}


def scenario(**changes: Any) -> Scenario:
    return make_scenario(SCENARIO | changes)


def interval(at_s: float, *, e2e_ms: float | None = 800, **counts: Any) -> Interval:
    held = histogram()
    if e2e_ms is not None:
        held.record_value(round(1000 * e2e_ms), 20)
    given: dict[str, Any] = {"due": 20, "ended": {"OK": 18}, "tokens": 900, "in_flight": 7} | counts
    return Interval(at_s=at_s, seconds=1.0, histograms={} if e2e_ms is None else {"e2e": encode(held)}, **given)


def drawn(course: Course, width: int = 80) -> str:
    console = Console(width=width, file=StringIO(), record=True)
    console.print(View(course))
    return console.export_text()


def row(text: str, name: str) -> list[str]:
    """The cells of the row that begins so."""
    line = next(line.strip() for line in text.splitlines() if line.strip().startswith(name))
    return line.removeprefix(name).split()


def test_rates_and_latencies_are_of_the_last_seconds_and_of_the_whole() -> None:
    course = Course(scenario())
    for second in range(10):
        course.add(interval(second, due=10, e2e_ms=100))
    for second in range(10, 20):
        course.add(interval(second, due=30, e2e_ms=900))
    text = drawn(course)
    assert row(text, "offered, requests/s")[:2] == ["30.0", "20.0"]
    assert row(text, "answered, requests/s")[:2] == ["18.0", "18.0"]
    assert row(text, "e2e, p50 / p99 ms")[:6] == ["900", "/", "900", "100", "/", "900"]
    assert row(text, "in flight") == ["7"]


def test_the_warm_up_is_not_in_the_whole() -> None:
    course = Course(scenario())
    for second in (-2, -1, 0):
        course.add(interval(second, due=100 if second < 0 else 4))
    assert row(drawn(course), "offered, requests/s")[1] == "4.00"


def test_what_drains_counts_for_latencies_and_errors_but_not_for_rates() -> None:
    course = Course(scenario(seconds=1))
    course.add(interval(0, e2e_ms=100))
    course.add(interval(1, due=0, e2e_ms=7000, ended={"OK": 40, "UNAVAILABLE": 2}))
    text = drawn(course)
    assert row(text, "answered, requests/s")[1] == "18.0"
    assert row(text, "e2e, p50 / p99 ms")[-2] == "7,000"
    assert row(text, "UNAVAILABLE") == ["2", "2"]


def test_errors_have_a_row_for_each_code() -> None:
    course = Course(scenario())
    course.add(interval(0, ended={"OK": 3, "RESOURCE_EXHAUSTED": 5}))
    for second in range(1, 7):
        course.add(interval(second))
    text = drawn(course)
    assert row(text, "RESOURCE_EXHAUSTED") == ["0", "5"]
    assert "OK " not in text


def test_metrics_that_the_task_does_not_have_take_no_row() -> None:
    course = Course(scenario())
    course.add(interval(0))
    text = drawn(course)
    assert ("TTFT" in text, "tokens/s" in text) == (False, False)


@pytest.mark.parametrize(("width", "sparks"), [(60, 0), (80, 20), (200, 60)])
def test_every_line_fits_the_terminal(width: int, sparks: int) -> None:
    course = Course(scenario())
    for second in range(70):
        course.add(interval(second, ended={"OK": 3, "RESOURCE_EXHAUSTED": 123_456}, tokens=1_234_567))
    text = drawn(course, width)
    assert max(map(len, text.splitlines())) <= width
    assert row(text, "offered, requests/s")[2:] == ["█" * sparks] * (sparks > 0)
    assert row(text, "RESOURCE_EXHAUSTED") == ["617,280", "8,641,920"]


def test_the_phase_and_the_time_that_is_left_follow_the_intervals() -> None:
    course = Course(scenario(seconds=60, warmup_s=5))
    assert "starting" in drawn(course)
    assert "1:05 left" in drawn(course)
    for at_s, phase, left in ((-5, "warming up", "1:03 left"), (29, "measuring", "0:29 left")):
        course.add(interval(at_s))
        text = drawn(course)
        assert (phase in text, left in text) == (True, True), text
    course.add(interval(60, in_flight=3))
    text = drawn(course)
    assert ("draining" in text, "3 in flight" in text) == (True, True)


def test_without_a_terminal_there_is_a_line_each_five_seconds_and_for_each_phase() -> None:
    console = Console(file=StringIO(), record=True, width=200)
    with watching(scenario(), console, live=True) as watch:
        for second in range(-3, 12):
            watch(interval(second, ended={"OK": 10, "UNAVAILABLE": int(second == 8)}))
    heading, *lines = console.export_text().splitlines()
    assert heading == "chat  pycode at 127.0.0.1:8001  20 requests/s, Poisson"
    assert [" ".join(line.split("  offered")[0].split()) for line in lines] == [
        "warming up -2 s",
        "measuring 0 s",
        "measuring 5 s",
        "measuring 10 s",
    ]
    assert "answered 10.0/s  in flight 7  p50 / p99 800 / 800 ms" in lines[2]
    assert lines[3].endswith("UNAVAILABLE 1")


def test_on_a_terminal_the_view_is_drawn_and_gone_afterwards() -> None:
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=40)
    with watching(scenario(), console, live=True) as watch:
        watch(interval(0))
        console.print("a line above it")
    shown = file.getvalue()
    assert shown.count("answered, requests/s") >= 2
    assert shown.endswith("\x1b[2K")


def test_a_view_that_is_not_wanted_is_lines_on_a_terminal_too() -> None:
    file = StringIO()
    with watching(scenario(), Console(file=file, force_terminal=True, width=200), live=False) as watch:
        watch(interval(0))
    assert len(file.getvalue().splitlines()) == 2


@pytest.mark.parametrize(
    ("numbers", "width", "shown"),
    [
        ([], 8, ""),
        ([0, 0], 8, "▁▁"),
        ([0, 1, 2, 4], 8, "▁▃▅█"),
        ([9, 1, 1], 2, "██"),
    ],
)
def test_a_sparkline_reaches_from_zero_to_its_greatest(numbers: list[float], width: int, shown: str) -> None:
    assert sparkline(numbers, width) == shown


def test_figures_have_three_digits_or_more() -> None:
    assert [figure(number) for number in (0, 0.123, 9.876, 12.34, 123.4, 1234.5)] == [
        "0.00",
        "0.12",
        "9.88",
        "12.3",
        "123",
        "1,234",
    ]


@pytest.mark.parametrize(
    ("arrivals", "words"),
    [
        ({"constant": 2.5}, "2.5 requests/s, evenly"),
        ({"ramp": {"from": 0, "to": 50}}, "from 0 to 50 requests/s"),
        ({"steps": {"rates": [5, 10]}}, "5, 10 requests/s"),
        ({"trace": "day/trace.csv"}, "as in trace.csv"),
        ({"callers": 16}, "16 callers"),
    ],
)
def test_arrivals_are_said_in_words(arrivals: dict[str, Any], words: str) -> None:
    assert words in drawn(Course(scenario(arrivals=arrivals)))
