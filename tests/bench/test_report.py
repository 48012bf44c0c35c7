"""What a run says in the end."""

import io
import json
from dataclasses import replace

from rich.console import Console

from bench.report import Comparison, Figure, Part, Report, show

SLOW = Figure(name="slow", value=80, unit="rows/s", bare=100, ratios=(0.7, 0.9, 0.8), aim=0.9)
FAST = Figure(name="fast", value=1.1, unit="ms", aim=1.2, better="less")
PLAIN = Figure(name="plain", value=12_345, unit="MB")


def report(others_cores: float = 0.0) -> Report:
    part = Part(
        name="tensors",
        title="Tensors",
        figures=(SLOW, FAST, PLAIN),
        notes=("a note",),
        comparison=Comparison(title="Others", columns=("", "share"), rows=(("another", "0.50"),)),
        data={"rounds": [1, 2, 3]},
    )
    return Report(
        settings={"rounds": 3},
        versions={"python": "3"},
        hardware={"cores": 2},
        seconds=90,
        others_cores=others_cores,
        parts=(part,),
    )


def test_the_aim_is_for_the_median_of_the_ratios_where_there_are_any() -> None:
    assert (SLOW.ratio, SLOW.reached) == (0.8, False)
    assert (FAST.ratio, FAST.reached) == (None, True)
    assert (PLAIN.ratio, PLAIN.reached) == (None, None)


def test_json_has_everything() -> None:
    read = json.loads(report().to_json())
    figures = read["parts"]["tensors"]["figures"]
    assert read["schema_version"] == 1
    assert (read["settings"], read["versions"], read["hardware"]) == ({"rounds": 3}, {"python": "3"}, {"cores": 2})
    assert [figure["reached"] for figure in figures] == [False, True, None]
    assert figures[0]["ratios"] == [0.7, 0.9, 0.8]
    assert read["parts"]["tensors"]["data"] == {"rounds": [1, 2, 3]}


def test_tables_show_figure_bare_ratio_aim_and_whether_it_is_reached() -> None:
    output = io.StringIO()
    show(report(), Console(file=output, width=120))
    lines = output.getvalue().splitlines()
    (slow,) = [line for line in lines if "slow" in line]
    (fast,) = [line for line in lines if "fast" in line]
    assert [word in slow for word in ("80 rows/s", "100 rows/s", "0.800", "0.70 to 0.90", "≥ 0.9", "no")] == [True] * 6
    assert [word in fast for word in ("1.1 ms", "≤ 1.2 ms", "yes")] == [True] * 3
    assert any("12,345 MB" in line for line in lines)
    assert any("another" in line for line in lines)
    assert "1 of 2 aims reached, in 1.5 minutes" in output.getvalue()


def test_a_part_says_beside_whom_it_stands_and_its_title_where_there_is_no_figure() -> None:
    for figures, expected in (((SLOW,), "vLLM"), ((), "Chat")):
        output = io.StringIO()
        part = Part(name="chat", title="Chat", figures=figures, beside="vLLM")
        show(replace(report(), parts=(part,)), Console(file=output, width=120))
        assert expected in output.getvalue()


def test_a_run_beside_others_says_so() -> None:
    output = io.StringIO()
    show(report(others_cores=0.4), Console(file=output, width=120))
    assert "Others used 0.40 of the cores" in output.getvalue()
