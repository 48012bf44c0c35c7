"""Programs that an export runs, and ends with."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

TAIL_LINES = 40


def run(command: Sequence[str], hear: Callable[[str], None], environment: Mapping[str, str] | None = None) -> int:
    """Runs a command until it ends; `hear` is told each line that it prints. Interrupted, it ends the command and all
    that this has started. Answers its exit status."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | dict(environment or {}),
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            hear(line.rstrip())
        return child.wait()
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        child.stdout.close()


class Tail:
    """The last lines that a command printed."""

    def __init__(self, also: Callable[[str], None]) -> None:
        self._lines: list[str] = []
        self._also = also

    def __call__(self, line: str) -> None:
        if line.strip():
            self._lines = [*self._lines[1 - TAIL_LINES :], line]
            self._also(line)

    @property
    def last(self) -> str:
        return self._lines[-1].strip() if self._lines else "it says nothing"
