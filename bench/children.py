"""Measuring processes: a specification goes to `python -m MODULE` as JSON, and what it measured comes back as JSON."""

import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import bare_generation, bare_tensors, load, streams
from bench.completions import Completions
from bench.generation import overhead

LIMIT_S = 300.0
ROOT = Path(__file__).parent.parent
THIS_PYTHON = Path(sys.executable)


class MeasurementFailed(Exception):
    """A measuring process ended with an error, which its output names."""


async def measure_bare(bare: bare_tensors.Bare) -> bare_tensors.Measured:
    found = await _run("bench.bare_tensors", bare)
    by_rows = {name: {int(rows): value for rows, value in entries.items()} for name, entries in found.items()}
    return bare_tensors.Measured(**by_rows)


async def measure_load(spec: load.Load) -> load.Measured:
    return load.Measured(**await _run("bench.load", spec))


async def measure_streams(spec: streams.Streams) -> streams.Measured:
    return streams.Measured(**await _run("bench.streams", spec))


async def measure_bare_generation(bare: bare_generation.Bare) -> Completions:
    return await measure_completions("bench.bare_generation", bare)


async def measure_completions(module: str, spec: Any, python: Path = THIS_PYTHON) -> Completions:
    """Runs a program that answers with `Completions`, in an interpreter that has what it needs."""
    return Completions(**await _run(module, spec, python))


async def measure_steps(spec: overhead.Steps) -> overhead.Measured:
    return overhead.Measured(**await _run("bench.generation.overhead", spec))


async def _run(module: str, spec: Any, python: Path = THIS_PYTHON) -> dict[str, Any]:
    """Raises MeasurementFailed; a child that hangs is killed."""
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        given, result = Path(folder) / "spec.json", Path(folder) / "result.json"
        given.write_text(json.dumps(asdict(spec)))
        child = await asyncio.create_subprocess_exec(
            python, "-m", module, given, result, stderr=asyncio.subprocess.PIPE, cwd=ROOT
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                _, errors = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            raise MeasurementFailed(
                f"{module} ended with status {child.returncode}:\n{errors.decode(errors='replace')}"
            )
        loaded: dict[str, Any] = json.loads(result.read_text())
        return loaded
