"""`make chaos`: runs the experiments one after the other, and prints one table.

python -m tests.chaos                  a short round of all
python -m tests.chaos --long           the full ones
python -m tests.chaos --only 1,6 --seed 7
python -m tests.chaos --markdown /tmp/table.md
"""

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.experiment import Experiment, Outcome, Scale
from tests.chaos.experiments import EXPERIMENTS

HEADINGS = ("#", "fault", "what was done", "counts", "figures", "seconds", "passed")


def main() -> int:
    """0 where all have passed."""
    arguments = _parser().parse_args()
    console = Console()
    scale = Scale(long=arguments.long, seed=arguments.seed)
    chosen = arguments.only or [one for one in EXPERIMENTS if scale.long or not one.only_long]
    console.print(f"{len(chosen)} experiments; the same chances again: --seed {scale.seed}", highlight=False)
    rows = []
    for experiment in chosen:
        with console.status(f"{experiment.number} {experiment.title}"):
            rows.append(_run(experiment, scale))
        console.print(_line(*rows[-1]), highlight=False)
    console.print(_table(rows))
    if arguments.markdown:
        arguments.markdown.write_text(_markdown(rows))
    return 0 if all(outcome.passed for _, outcome, _ in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--long", action="store_true", help="the full experiments instead of a short round")
    parser.add_argument("--only", type=_chosen, metavar="N,N", help="the numbers of those to run")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="what is random is drawn from it")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the table there too")
    return parser


def _chosen(numbers: str) -> list[Experiment]:
    by_number = {str(one.number): one for one in EXPERIMENTS}
    try:
        return [by_number[number] for number in numbers.split(",")]
    except KeyError as unknown:
        raise argparse.ArgumentTypeError(f"there is no experiment {unknown}: they are {', '.join(by_number)}") from None


Row = tuple[Experiment, Outcome, float]


def _run(experiment: Experiment, scale: Scale) -> Row:
    began = time.monotonic()
    try:
        outcome = asyncio.run(experiment.run(scale))
    except Exception as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        outcome = Outcome(done="broke off", counts={}, failures=(f"{type(error).__name__}: {error}\n{notes}",))
    return experiment, outcome, time.monotonic() - began


def _line(experiment: Experiment, outcome: Outcome, seconds: float) -> str:
    verdict = "passed" if outcome.passed else "NOT PASSED"
    lines = [f"{experiment.number:>2} {experiment.title}: {verdict} in {seconds:.0f} s"]
    return "\n".join([*lines, *(f"   {failure}" for failure in outcome.failures)])


def _cells(experiment: Experiment, outcome: Outcome, seconds: float) -> tuple[str, ...]:
    return (
        str(experiment.number),
        experiment.title,
        outcome.done,
        ", ".join(f"{count:,} {name}" for name, count in outcome.counts.items()),
        "; ".join(f"{name} {figure}" for name, figure in outcome.figures.items()),
        f"{seconds:.0f}",
        "yes" if outcome.passed else "NO",
    )


def _table(rows: list[Row]) -> Table:
    table = Table(*HEADINGS, show_lines=True)
    for row in rows:
        table.add_row(*_cells(*row))
    return table


def _markdown(rows: list[Row]) -> str:
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(_cells(*row) for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
