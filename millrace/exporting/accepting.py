"""Whether a worker serves the folder: its own loader says so, in a process of its own."""

import importlib.util
import subprocess
import sys
from pathlib import Path

CHECK = "services.worker.repository.check"
"""Run as `python -m … REPOSITORY [DEVICE]`: reads each version as a worker does and, with a device, loads it there.
What it refuses stands on standard error, and the status is not 0."""
LIMIT_S = 600.0


def accepted(repository: Path, device: str | None) -> bool:
    """Whether a worker has loaded all that is there; False where it could only read it, for want of the device. Raises
    ValueError with the worker's own sentence where it would refuse a version."""
    command = [sys.executable, "-m", CHECK, str(repository), *([device] if device else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise ValueError(f"the worker did not load the model within {LIMIT_S:g} s") from None
    if done.returncode:
        raise ValueError(f"the worker refuses the model: {_last_line(done.stderr)}")
    return device is not None


def is_here() -> bool:
    """Whether there is a worker to ask."""
    try:
        return importlib.util.find_spec(CHECK) is not None
    except ModuleNotFoundError:
        return False


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it says nothing")
