"""`millrace load`: what its flags mean, and what its exit status says."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from millrace.cli.load import load_app
from millrace.cli.load.flags import Flags
from millrace.cli.load.outputs import Outputs
from millrace.cli.load.run import judge
from millrace.cli.load.scenario import scenario_of
from millrace.errors import InvalidRequest
from millrace.load.result import Verification, write_result
from millrace.load.scenario import SLOS, Scenario, Slo, Spread, read_scenario
from tests.load.results import make_result

SCENARIOS = Path("tests/load/scenarios")
FILE = """
model: pycode
arrivals: {poisson: 20}
requests: {prompts: prompts.txt, max_tokens: 64, options: {temperature: 0, seed: 1}, priority: batch}
seconds: 120
slo: interactive
"""


def flags(**given: Any) -> Scenario:
    return scenario_of(Flags(**given))


def load(*arguments: str) -> tuple[int, str]:
    """In this process: the exit status, and what was printed."""
    answer = CliRunner().invoke(load_app, arguments, env={"COLUMNS": "140", "MILLRACE_ADDRESS": None})
    return answer.exit_code, answer.output


@pytest.mark.parametrize(
    ("given", "arrivals"),
    [
        ({"rate": 20.0}, {"poisson": 20}),
        ({"constant": 2.5}, {"constant": 2.5}),
        ({"callers": 8}, {"callers": 8}),
        ({"ramp": "5:50"}, {"ramp": {"from": 5, "to": 50}}),
        ({"steps": "5,10,20"}, {"steps": {"rates": [5, 10, 20]}}),
        ({"trace": Path("trace.csv")}, {"trace": Path("trace.csv")}),
    ],
)
def test_each_flag_of_arrivals_stands_for_its_setting(given: dict[str, Any], arrivals: dict[str, Any]) -> None:
    scenario = flags(model="pycode", **given)
    assert scenario.arrivals.model_dump(by_alias=True, exclude_unset=True) == arrivals
    assert scenario.name == "pycode"


def test_flags_say_what_is_asked_for() -> None:
    scenario = flags(
        model="pycode",
        rate=1.0,
        prompt_tokens="120:40",
        max_tokens="64",
        options=["temperature=0.5", 'stop_strings=["x"]', "regex=a+"],
        inputs=["x=@x.npy", "y=[[1, 2]]", 'z={"shape": [1, 28]}'],
        timeout=2.5,
        priority="batch",
        files=[Path("a.png"), Path("b.png")],
    )
    requests = scenario.requests
    assert requests.prompt_tokens == Spread(mean=120, stdev=40)
    assert requests.max_tokens == 64
    assert requests.options == {"temperature": 0.5, "stop_strings": ["x"], "regex": "a+"}
    assert requests.inputs == {"x": "x.npy", "y": [[1, 2]], "z": {"shape": [1, 28]}}
    assert (requests.timeout_s, requests.priority, requests.files) == (2.5, "batch", [Path("a.png"), Path("b.png")])


@pytest.mark.parametrize(
    ("text", "slo"),
    [
        ("interactive", SLOS["interactive"]),
        ("ttft_ms=500,tpot_ms=30", Slo(ttft_ms=500, tpot_ms=30)),
        ("e2e_ms=2000,quantile=0.95", Slo(e2e_ms=2000, quantile=0.95)),
    ],
)
def test_an_slo_is_a_name_or_limits(text: str, slo: Slo) -> None:
    assert flags(model="pycode", rate=1.0, slo=text).slo == slo


def test_flags_win_over_the_file_and_leave_the_rest_of_it(tmp_path: Path) -> None:
    file = tmp_path / "evening.yaml"
    file.write_text(FILE)
    scenario = flags(scenario=file, callers=4, seconds=10.0, max_tokens="8", options=["seed=2"])
    assert (scenario.name, scenario.model, scenario.seconds) == ("evening", "pycode", 10)
    assert scenario.arrivals.model_dump(exclude_unset=True) == {"callers": 4}
    assert (scenario.requests.max_tokens, scenario.requests.priority) == (8, "batch")
    assert scenario.requests.options == {"temperature": 0, "seed": 2}
    assert scenario.requests.prompts == tmp_path / "prompts.txt"
    assert scenario.slo == SLOS["interactive"]


def test_a_prompt_takes_the_place_of_the_files_prompts(tmp_path: Path) -> None:
    file = tmp_path / "evening.yaml"
    file.write_text(FILE)
    requests = flags(scenario=file, prompt="hello").requests
    assert (requests.prompt, requests.prompts, requests.max_tokens) == ("hello", None, 64)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "give a scenario file, or the model"),
        ({"model": "pycode"}, "one of --rate, --constant"),
        ({"model": "pycode", "rate": 1.0, "callers": 2}, "not --rate and --callers"),
        ({"model": "pycode", "ramp": "5"}, "'5' is not A:B"),
        ({"model": "pycode", "ramp": "5:a"}, "'5:a' is not A:B"),
        ({"model": "pycode", "steps": ""}, "'' is not rates"),
        ({"model": "pycode", "rate": 1.0, "max_tokens": "many"}, "'many' is not a number of tokens"),
        ({"model": "pycode", "rate": 1.0, "options": ["seed"]}, "'seed' must be NAME=VALUE"),
        ({"model": "pycode", "rate": 1.0, "options": ["seed=1", "seed=2"]}, "seed is there twice"),
        ({"model": "pycode", "rate": 1.0, "inputs": ["x=file.npy"]}, "'file.npy' is not JSON; @FILE"),
        ({"model": "pycode", "rate": 1.0, "slo": "ttft_ms=soon"}, "'soon' is not a number"),
    ],
)
def test_flags_that_make_no_sense_are_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        flags(**given)
    assert all(violation.field for violation in caught.value.violations)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-m", "pycode", "--rate", "-3"), "arrivals.poisson: Input should be greater than 0"),
        (("-m", "pycode", "--rate", "inf"), "arrivals.poisson: Input should be a finite number"),
        (("-m", "pycode", "--rate", "3", "--slo", "fast"), "slo 'fast' is not one of interactive, server"),
        (("-m", "pycode", "--rate", "3", "--slo", "ttft=3"), "slo.ttft: Extra inputs are not permitted"),
        (("-m", "pycode", "--rate", "3", "--fail-under-slo"), "needs an SLO"),
        (("-m", "pycode", "--rate", "3", "--rats", "4"), "No such option: --rats"),
        (("nothing.yaml",), "nothing.yaml: No such file"),
        (("sweep", "-m", "pycode"), "a sweep needs limits to meet"),
        (("compare", "nothing.json", "nothing.json"), "nothing.json: No such file"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(arguments: tuple[str, ...], words: str) -> None:
    status, said = load(*arguments)
    assert (status, words in said) == (2, True), said
    assert "Traceback" not in said


def test_what_is_no_command_is_a_run() -> None:
    for arguments in ((), ("run",)):
        status, said = load(*arguments, "missing.yaml", "--seconds", "3")
        assert (status, "missing.yaml: No such file" in said) == (2, True)


def test_the_help_shows_the_flags_of_a_run_and_the_commands() -> None:
    status, said = load("--help")
    assert status == 0
    for words in ("--prompt-tokens", "--fail-under-slo", "sweep ", "compare ", "Exit status"):
        assert words in said
    status, said = load("compare", "--help")
    assert (status, "Exits with 4" in said) == (0, True)


def test_the_schemas_are_json() -> None:
    status, said = load("schema")
    schemas = json.loads(said)
    assert status == 0
    assert {"arrivals", "requests", "slo"} <= schemas["scenario"]["properties"].keys()
    assert {"schema", "intervals", "total"} <= schemas["result"]["properties"].keys()


def test_the_command_line_comes_up_without_the_extra_and_says_what_to_install() -> None:
    code = "import sys; sys.modules['hdrh'] = None; from millrace.cli.load import load_app; load_app()"
    for arguments, status in ((["--help"], 0), (["-m", "pycode", "--rate", "1"], 2)):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
    assert done.stderr == "`millrace load` needs hdrh: pip install 'millrace[load]'\n"


def test_the_command_line_does_not_load_what_only_a_run_needs() -> None:
    code = "import sys, millrace.cli.load; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"hdrh", "matplotlib", "jinja2", "yaml", "millrace.load"}.isdisjoint(loaded)


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_projects_scenarios_are_valid_and_say_what_they_show(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.name == path.stem
    assert path.read_text().startswith("# ")
    for file in (scenario.arrivals.trace, scenario.requests.prompts, *scenario.requests.files):
        assert file is None or file.is_file()


def test_results_go_to_a_folder_of_their_own_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = Outputs(out=None, report=True, live=False)
    with outputs.files("evening, 5/s", "result") as files:
        assert files.numbers.parent.name.startswith("evening-5-s-")
        files.write(lambda path: path.touch(), lambda path: path.touch())
    assert sorted(path.name for path in (tmp_path / "build/load").glob("*/*")) == ["report.html", "result.json"]
    with replace(outputs, out=Path("main.json"), report=False).files("evening", "result") as files:
        assert (files.numbers, files.page) == (Path("main.json"), None)


def test_a_folder_that_was_made_for_nothing_is_gone_and_one_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        with Outputs(out=tmp_path / name, report=True, live=False).files("chat", "result") as files:
            assert files.numbers == tmp_path / name / "result.json"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_run_that_is_no_worse_passes_and_one_that_is_fails_with_4(tmp_path: Path) -> None:
    for name, slower in (("before", 1.0), ("same", 1.0), ("slower", 1.5)):
        write_result(make_result(seconds=20, slower=slower), tmp_path / f"{name}.json")
    before = str(tmp_path / "before.json")
    status, said = load("compare", before, str(tmp_path / "same.json"))
    assert (status, "worse" in said) == (0, False)
    status, said = load("compare", before, str(tmp_path / "slower.json"), "--threshold", "10%")
    assert (status, "threshold 10.00%" in said) == (4, True)
    (row,) = [line for line in said.splitlines() if line.startswith(" tpot p50, ms")]
    assert row.split()[-1] == "worse"


@pytest.mark.parametrize("threshold", ["much", "150%", "-1"])
def test_a_threshold_that_is_no_share_is_refused(tmp_path: Path, threshold: str) -> None:
    write_result(make_result(seconds=5), tmp_path / "a.json")
    status, said = load("compare", str(tmp_path / "a.json"), str(tmp_path / "a.json"), "--threshold", threshold)
    assert (status, "threshold" in said) == (2, True)


def test_the_exit_status_tells_faults_and_a_missed_slo_apart() -> None:
    met, missed = make_result(seconds=5), make_result(seconds=5, slower=100.0)
    assert [judge(result, fail_under_slo=True) for result in (met, missed)] == [0, 3]
    assert judge(missed, fail_under_slo=False) == 0
    assert judge(make_result(seconds=5, errors=0.1), fail_under_slo=True) == 3
    assert judge(make_result(seconds=5, errors=1.0), fail_under_slo=False) == 1
    faulty = Verification(streams=3, deltas=9, fault_count=1)
    assert judge(make_result(seconds=5, verification=faulty), fail_under_slo=True) == 1
