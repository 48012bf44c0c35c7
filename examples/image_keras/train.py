"""The training, in TensorFlow's process: what it is given, how far it is, and what it leaves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from examples.image.data import Digits, Split
from examples.training.history import History
from millrace.exporting import children, environment
from millrace.exporting.stages import Stages

CHILD = Path(__file__).with_name("train_child.py")
MODEL, HELD_OUT = "digits.keras", "held_out.npz"
HISTORY, CHECKPOINT = "history.json", "checkpoint.weights.h5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """`step_flops` are those of training for one image; `peak_flops` those of large products in a second."""

    history: History
    weights: int
    step_flops: float
    peak_flops: float

    @property
    def share(self) -> float:
        """Of the peak, 0..1."""
        return self.history.rate * self.step_flops / self.peak_flops


def write_split(split: Split, work: Path) -> None:
    """The parts as Keras takes images: `x` [n, 8, 8, 1], channels last."""
    for name, part in (("train", split.train), ("validation", split.validation), ("held_out", split.held_out)):
        np.savez_compressed(work / f"{name}.npz", x=channels_last(part), label=part.label)


def channels_last(part: Digits) -> Any:
    """From [n, 1, 8, 8] to [n, 8, 8, 1]."""
    return np.moveaxis(part.x, 1, 3)


def python(environments: Path, stages: Stages) -> Path:
    """The one that has TensorFlow, which the first call installs. Raises ValueError where that cannot be done."""
    ready = environment.is_complete(environments)
    with stages.stage("TensorFlow's environment" if ready else "install TensorFlow, once: 1.6 GB, a minute or two"):
        return environment.python(environments, stages.say)


def train(interpreter: Path, work: Path, console: Console, *, epochs: int, threads: int, resume: bool) -> Trained:
    """Writes MODEL and predictions.npz to `work`, which has the split.

    Raises ValueError with the child's last line where it fails. With `resume` goes on from the checkpoint in `work`;
    raises FileNotFoundError when there is none, and RuntimeError when it is of a run of other epochs.
    """
    if resume:
        check_checkpoint(work, epochs)
    told: list[Mapping[str, Any]] = []

    def hear(line: str) -> None:
        if line.startswith('{"'):
            told.append(json.loads(line))
            if "step" in told[-1]:
                console.print(epoch_line(told[-1], epochs), highlight=False)

    order = {"work": str(work.absolute()), "epochs": epochs, "threads": threads, "resume": resume}
    (work / "order.json").write_text(json.dumps(order))
    tail = children.Tail(hear)
    status = children.run([str(interpreter), "-I", str(CHILD), str(work / "order.json")], tail)
    if status or not told or "flops" not in told[-1]:
        raise ValueError(f"TensorFlow's process ended with status {status}: {tail.last}")
    last = told[-1]
    return Trained(
        history=read_history(work / HISTORY),
        weights=last["weights"],
        step_flops=last["flops"],
        peak_flops=last["peak"],
    )


def check_checkpoint(work: Path, epochs: int) -> None:
    """Raises what `train` does."""
    checkpoint = work / CHECKPOINT
    if not checkpoint.exists():
        raise FileNotFoundError(f"nothing to resume: {checkpoint} does not exist")
    made = json.loads((work / HISTORY).read_text())["epochs"]
    if made != epochs:
        raise RuntimeError(f"{checkpoint} is of a run of {made} epochs: --epochs {made} goes on with it")


def epoch_line(point: Mapping[str, Any], epochs: int) -> str:
    """Of one epoch, for people."""
    found = f"loss {point['loss']:.3f}, validation {point['validation_loss']:.3f} {point['accuracy']:.1%}"
    rate = point["images"] / point["seconds"] if point["seconds"] else 0.0
    return f"step {point['step']:,} ({epochs} epochs): {found}, {rate:,.0f} images/s"


def read_history(path: Path) -> History:
    """What the child wrote."""
    record = json.loads(path.read_text())
    last, losses = record["curve"][-1], record["losses"]
    return History(
        steps=len(losses), seconds=last["seconds"], amount=last["images"], losses=losses, curve=record["curve"]
    )
