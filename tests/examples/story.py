"""A story's one command, as people start it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK_S = 600
"""A story takes one or two minutes of two cores that it has for itself."""


def run(story: str, *options: str | Path, needs: tuple[str, ...]) -> str:
    """What `python -m examples.STORY --quick` printed; skips the test where one of the packages is not there."""
    for package in needs:
        pytest.importorskip(package)
    called = [sys.executable, "-m", f"examples.{story}", "--quick", *map(str, options)]
    wide = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(called, cwd=ROOT, env=wide, capture_output=True, text=True, timeout=QUICK_S, check=False)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    return done.stdout
