"""The ceiling for tensors: ONNX Runtime alone in a process.

python -m bench.bare_tensors SPEC.json RESULT.json
"""

import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Feed = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """What to run. Every session has `threads` threads and is run by a thread of its own."""

    model: str
    feed: str
    """An .npz of the inputs; a run takes their first rows."""
    sessions: int = 1
    threads: int
    spinning: bool = True
    """As the runtime's default is: its threads wait for the next run on their cores."""
    rows: tuple[int, ...]
    """Of a run, one measurement each."""
    seconds: float
    pause_s: float = 0.0
    """Before each run: one that comes after a while finds the caches cold, and the core asleep."""
    outputs: str = ""
    """Where the first output of all rows goes, one row run at a time; nowhere where it is empty."""


@dataclass(slots=True, kw_only=True)
class Measured:
    """By rows of a run: rows a second of all sessions together, and what the runs of the first one took."""

    rates: dict[int, float] = field(default_factory=dict)
    runs_ms: dict[int, list[float]] = field(default_factory=dict)


def open_session(bare: Bare) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = bare.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(bare.spinning)))
    return ort.InferenceSession(bare.model, options, providers=["CPUExecutionProvider"])


def run_for(session: ort.InferenceSession, feed: Feed, seconds: float, pause_s: float = 0.0) -> list[float]:
    """Runs, at least once, until the time is over; answers the seconds that each took. One before them warms up."""
    session.run(None, feed)
    took, began = list[float](), time.perf_counter()
    while not took or time.perf_counter() - began < seconds:
        if pause_s:
            time.sleep(pause_s)
        start = time.perf_counter()
        session.run(None, feed)
        took.append(time.perf_counter() - start)
    return took


def measure(bare: Bare) -> Measured:
    sessions = [open_session(bare) for _ in range(bare.sessions)]
    with np.load(bare.feed) as loaded:
        feed = dict(loaded)
    measured = Measured()
    for rows in bare.rows:
        taken = _run_all(sessions, _first(feed, rows), bare)
        measured.rates[rows] = sum(rows * len(took) / sum(took) for took in taken)
        measured.runs_ms[rows] = [1000 * seconds for seconds in taken[0]]
    if bare.outputs:
        count = len(next(iter(feed.values())))
        each = [{name: array[row : row + 1] for name, array in feed.items()} for row in range(count)]
        np.save(bare.outputs, np.concatenate([sessions[0].run(None, one)[0] for one in each]))
    return measured


def _run_all(sessions: list[ort.InferenceSession], feed: Feed, bare: Bare) -> list[list[float]]:
    if len(sessions) == 1:
        return [run_for(sessions[0], feed, bare.seconds, bare.pause_s)]
    taken: list[list[float]] = [[] for _ in sessions]

    def run(index: int) -> None:
        taken[index] = run_for(sessions[index], feed, bare.seconds, bare.pause_s)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def _first(feed: Feed, rows: int) -> Feed:
    """The first rows, from the start again where there are fewer."""
    return {name: np.ascontiguousarray(np.resize(array, (rows, *array.shape[1:]))) for name, array in feed.items()}


def main() -> None:
    spec, result = sys.argv[1:]
    measured = measure(Bare(**json.loads(Path(spec).read_text())))
    Path(result).write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
