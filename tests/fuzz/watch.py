"""Has a target's inputs run in a process of its own, which an input may crash, hang or blow up."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.fuzz.child import FINDINGS, Progress, load
from tests.fuzz.drive import Found, Tally

POLL_S = 0.05
PATIENCE = 5
"""How many times longer than it may use the processor an input may wait, before it counts as hanging."""
START_S = 120.0
"""What may pass before the first input."""
MOST_DEATHS = 20
"""After so many of its process the rest of a target's inputs are left out."""
LOG_BYTES = 3_000

OnProgress = Callable[[int], None]


def watch(path: str, seed: int, count: int, *, seconds: float, on_progress: OnProgress = lambda _: None) -> Tally:
    """Runs the first `count` inputs of the target that MODULE:TARGET names."""
    tally, start = Tally(target=load(path).name), 0
    for _ in range(MOST_DEATHS):
        with TemporaryDirectory(prefix="millrace-fuzz-") as folder:
            start = _one_process(path, seed, start, count, seconds, Path(folder), tally, on_progress)
        if start >= count:
            break
    return tally


def _one_process(
    path: str, seed: int, start: int, count: int, seconds: float, folder: Path, tally: Tally, on_progress: OnProgress
) -> int:
    """Adds what became of the inputs from `start` on; answers where another process is to go on."""
    words = [path, str(seed), str(start), str(count), str(seconds), str(folder)]
    with closing(Progress(folder, create=True)) as progress:
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.child", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            hung = _wait(child, progress, seconds, on_progress)
        index, data, part = progress.index, progress.data, progress.tally
    tally.accepted += part.accepted
    tally.refused += part.refused
    tally.slowest_s = max(tally.slowest_s, part.slowest_s)
    tally.findings += _findings(folder)
    if child.returncode == 0:
        return count
    text = (folder / "log").read_bytes()[-LOG_BYTES:].decode(errors="replace")
    kind = "hung" if hung else f"died of {-child.returncode}" if child.returncode < 0 else "broke off"
    tally.findings.append(Found(target=tally.target, index=index, kind=kind, text=text, data=data))
    return index + 1 if index >= 0 else count


def _wait(child: "subprocess.Popen[bytes]", progress: Progress, seconds: float, on_progress: OnProgress) -> bool:
    """Returns once the process has ended, by itself or because an input takes too long; answers whether it hung."""
    started, clock = time.monotonic(), Clock(child.pid)
    while child.poll() is None:
        index = progress.index
        on_progress(max(index, 0))
        busy_s, idle_s = clock.since(index)
        late = busy_s > 2 * seconds or idle_s > PATIENCE * seconds
        if late if index >= 0 else time.monotonic() - started > START_S:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return True
        time.sleep(POLL_S)
    return False


class Clock:
    """For how long a process has been busy, and idle, with the input of an index. One that waits for a processor that
    others use is neither."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._index, self._began_s, self._worked_s = -1, 0.0, 0.0
        self._seen_at = time.monotonic()
        self._idle_s = 0.0

    def since(self, index: int) -> tuple[float, float]:
        with self._process.oneshot():
            worked_s, waits = sum(self._process.cpu_times()[:2]), self._process.status() != psutil.STATUS_RUNNING
        passed, self._seen_at = time.monotonic() - self._seen_at, time.monotonic()
        if index != self._index:
            self._index, self._began_s, self._idle_s = index, worked_s, 0.0
        elif waits and worked_s == self._worked_s:
            self._idle_s += passed
        self._worked_s = worked_s
        return worked_s - self._began_s, self._idle_s


def _findings(folder: Path) -> list[Found]:
    found: list[Found] = []
    if (path := folder / FINDINGS).exists():
        with path.open("rb") as file:
            while True:
                try:
                    found.append(pickle.load(file))
                except EOFError:
                    break
    return found
