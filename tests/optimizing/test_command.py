"""`millrace optimize`: what it prints, and how it ends."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from millrace.cli.optimize import NOTHING, WRONG, optimize, show
from tests.optimizing.models import ROOT, write, write_data
from tests.optimizing.test_run import optimised, order

app = typer.Typer()
app.command()(optimize)
DIGITS = ROOT / "models" / "digits" / "1"
QUICK = ("--rounds", "1", "--seconds", "0", "--threads", "1", "--out", "never")


def test_without_a_good_candidate_the_table_says_why_and_the_status_is_4(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DIGITS, tmp_path / "digits" / "1"))
    result = CliRunner().invoke(app, [str(folder), "--methods", "int4", *QUICK, "--json"])
    found = json.loads(result.stdout)
    original, refused = found["candidates"]
    assert result.exit_code == NOTHING
    assert found["published"] is None
    assert (original["method"], len(original["rounds"])) == ("original", 1)
    assert original["rounds"][0]["memory_bytes"] > original["size_bytes"]
    assert refused["verdict"] == "matrix products hold 0.0% of its weights"
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir()] == ["digits", "1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([str(DIGITS), "--methods", "int3"], "int3 is none of graph, fp16, int8"),
        ([str(DIGITS.parent / "7")], "there is no such folder"),
        ([str(DIGITS), "--out", "1"], "never overwritten"),
    ],
)
def test_what_makes_no_sense_is_said_with_status_2(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == WRONG
    assert words in " ".join(result.stderr.split())


def test_the_table_has_the_original_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wanted = order(write(tmp_path), data=write_data(tmp_path / "data.npz"))
    show(optimised(wanted), wanted, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0][:4] == ["size", "p50", "p99", "rows/s"]
    assert [line[0] for line in lines[2:4]] == ["original", "fp16"]
    assert lines[3][-2:] == ["100.00%", "+0.00%"]
    assert lines[4] == ["fp16", "best"]
    assert lines[5][-1].endswith("net/2")
