"""The smallest graph that loses little, by `millrace optimize`, as version 2.

The validation images judge, and training images scale the activations: the held-out ones take no part.
"""

import shutil
from pathlib import Path

import numpy as np
from rich.console import Console

from examples.image.data import Split
from millrace.exporting.stages import Stages
from millrace.optimizing.order import Method, Order, Prefer
from millrace.optimizing.run import Outcome
from millrace.optimizing.run import optimise as make

METHODS = (Method.GRAPH, Method.FP16, Method.INT8_STATIC)
CALIBRATION = 256
"""Training images."""
MOST_LOSS = 0.01


def optimise(split: Split, work: Path, version: Path, console: Console, *, quick: bool, threads: int) -> Outcome:
    """The second version is removed first, and made anew where a candidate is good enough."""
    judging, calibration = work / "validation.npz", work / "calibration.npz"
    split.validation.save(judging)
    split.train.pick(np.arange(CALIBRATION)).save(calibration)
    target = version.with_name("2")
    shutil.rmtree(target, ignore_errors=True)
    order = Order(
        folder=version,
        methods=METHODS,
        data=judging,
        calibration=calibration,
        max_loss=MOST_LOSS,
        prefer=Prefer.SIZE,
        out=target.name,
        rounds=1 if quick else 3,
        seconds=0.1 if quick else 1.0,
        threads=threads,
    )
    return make(order, Stages(console))
