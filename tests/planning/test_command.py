"""`millrace plan`."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from millrace.cli.plan import plan, read_slo
from millrace.load.scenario import SLOS, Slo
from millrace.load.sweeping.points import Sweep
from millrace.load.sweeping.sweep import write_sweep
from tests.planning.served import Served
from tests.planning.test_plan import swept

app = typer.Typer()
app.command()(plan)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Sweep = swept(Served())
    write_sweep(found, path := tmp_path_factory.mktemp("sweep") / "sweep.json")
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_says_how_many_workers_and_how_far_the_model_is_off(file: Path) -> None:
    answer = call(file, "--rate", 60)
    assert answer.exit_code == 0
    assert "60.0 requests/s take 5 workers, 1 of them spare." in answer.stdout
    assert "With 4, p99 TTFT: model " in answer.stdout
    assert "ms, simulation " in answer.stdout


def test_json_holds_the_whole_plan(file: Path) -> None:
    found = json.loads(call(file, "--rate", 60, "--spare", 0, "--json").stdout)
    assert found["schema"] == "millrace.plan/1"
    assert (found["workers"], len(found["rows"])) == (4, 4)


def test_what_is_wrong_is_said_in_a_sentence(file: Path, tmp_path: Path) -> None:
    for arguments, sentence in (
        ((file, "--rate", 0), "the rate must be above 0"),
        ((file, "--rate", 60, "--max", 3), "more than 3 workers"),
        ((file, "--rate", 60, "--slo", "fast"), "--slo fast is not one of interactive, server"),
        ((tmp_path / "none.json", "--rate", 60), "none.json"),
    ):
        answer = call(*arguments)
        assert (answer.exit_code, sentence in answer.stderr) == (2, True), answer.output


def test_limits_are_a_presets_or_ones_own() -> None:
    assert read_slo("interactive") == SLOS["interactive"]
    assert read_slo("ttft_ms=50, quantile=0.9") == Slo(ttft_ms=50, quantile=0.9)
    for wrong in ("ttft=50", "ttft_ms=fast", "ttft_ms=5,fast"):
        with pytest.raises(ValueError, match="--slo"):
            read_slo(wrong)
