"""`millrace load` on a running Millrace."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.load.result import read_result
from tests.cli.running import Up, millrace
from tests.load.faulty import MODEL, PLANTS, Faulty, serving
from tests.stub_models import write_stub

SCENARIO = """
# A short one.
name: short
model: stub
arrivals: {poisson: 20}
requests: {prompt: hello, max_tokens: 5}
seconds: 2
warmup_s: 0.5
slo: interactive
verify: true
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    models = tmp_path_factory.mktemp("models")
    write_stub(models, step_ms=5)
    with Up("--models", str(models)) as fleet:
        yield fleet


def where(up: Up) -> tuple[str, ...]:
    """The options that name the service."""
    return ("--address", up.addresses[0], "--http", up.log.split("http=")[1].split()[0])


async def test_a_scenario_leaves_a_summary_numbers_and_a_report(up: Up, tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(SCENARIO)
    out = tmp_path / "out"
    status, text, lines = await millrace("load", str(tmp_path / "short.yaml"), *where(up), "--out", str(out))
    assert status == 0, lines
    for words in ("end to end", "TTFT", "TPOT", "ITL", "The SLO was met.", "verified, no fault."):
        assert words in text
    assert text.splitlines()[-2:] == [str(out / "result.json"), str(out / "report.html")]
    assert "measuring" in lines
    result = read_result(out / "result.json")
    assert result.total.ok == result.total.due > 10
    assert (result.scenario.name, result.scenario.seconds) == ("short", 2)
    assert result.server
    assert "<html" in (out / "report.html").read_text()


async def test_an_slo_that_is_missed_ends_with_3_where_that_is_asked_for(up: Up, tmp_path: Path) -> None:
    flags = ("-m", "stub", "--callers", "2", "--max-tokens", "5", "--seconds", "1", "--warmup", "0.1", "--no-report")
    out = tmp_path / "numbers.json"
    limits = ("--slo", "ttft_ms=0.001", "--fail-under-slo")
    status, text, _ = await millrace("load", *flags, *where(up), *limits, "--out", str(out))
    assert status == 3
    assert "The SLO was not met: p99 of TTFT is" in text
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]


async def test_a_planted_fault_is_named_and_ends_with_1(tmp_path: Path) -> None:
    flags = ("-m", MODEL, "--rate", "20", "--seconds", "1", "--warmup", "0", "--verify", "--http", "", "--no-report")
    async with serving(Faulty(PLANTS["lost"])) as address:
        status, text, lines = await millrace("load", *flags, "--address", address, "--out", str(tmp_path))
    assert (status, " faults." in text) == (1, True), lines
    verification = read_result(tmp_path / "result.json").verification
    assert verification is not None
    assert verification.fault_count == verification.streams > 0
    assert verification.faults[0].detail in " ".join(text.split())


async def test_ctrl_c_keeps_what_was_measured(up: Up, tmp_path: Path) -> None:
    flags = ("-m", "stub", "--rate", "30", "--max-tokens", "5", "--seconds", "60", "--warmup", "0", "--no-report")
    command = (sys.executable, "-m", "millrace.cli", "load", *flags, *where(up), "--out", str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ | {"COLUMNS": "140"}
    )
    assert process.stdout is not None
    assert process.stderr is not None
    while b"measuring" not in (line := await process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    text = (await process.stdout.read()).decode()
    assert await process.wait() == 130
    assert "Interrupted after" in text
    result = read_result(tmp_path / "result.json")
    assert 1 <= result.scenario.seconds < 60
    assert result.total.ok > 0


async def test_a_service_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ("-m", "stub", "--rate", "1", "--address", "127.0.0.1:1", "--out", str(out))
    status, _, error = await millrace("load", *flags)
    assert (status, "millrace up" in error) == (1, True)
    assert not out.exists()
