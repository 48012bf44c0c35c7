"""The smallest graph that loses little, by `millrace optimize`, as version 2."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from millrace.cli.optimize import LEAST_COLUMNS, table
from millrace.exporting.stages import Stages
from millrace.optimizing import report
from millrace.optimizing.order import Method, Order, Prefer
from millrace.optimizing.run import optimise as make

OF_TEXTS = (Method.INT8_BLOCK, Method.INT4)
"""Those whose rows do not depend on each other."""


def optimise(
    version: Path,
    methods: Sequence[Method],
    data: Path,
    console: Console,
    *,
    most_loss: float,
    quick: bool,
    threads: int,
    calibration: Path | None = None,
) -> list[str]:
    """Prints the table, and answers it in Markdown. The second version is removed first, and made anew where a
    candidate is good enough.

    Raises ValueError where nothing can come of it."""
    target = version.with_name("2")
    shutil.rmtree(target, ignore_errors=True)
    order = Order(
        folder=version,
        methods=methods,
        data=data,
        calibration=calibration,
        max_loss=most_loss,
        prefer=Prefer.SIZE,
        out=target.name,
        rounds=1 if quick else 3,
        seconds=0.1 if quick else 1.0,
        threads=threads,
    )
    outcome = make(order, Stages(console))
    Console(width=max(console.width, LEAST_COLUMNS), highlight=False).print(table(outcome))
    for method, verdict in outcome.choice.verdicts.items():
        console.print(f"{method.value:<12} {verdict}")
    return list(report.markdown(outcome.candidates, outcome.choice))
