"""`make soak`: mixed load with random faults for a given time; fails where anything grows, or any answer is wrong.

python -m tests.soak --minutes 10
python -m tests.soak --minutes 60 --seed 7 --faults kill,cut
python -m tests.soak --minutes 5 --faults none
"""

import argparse
import asyncio
import random
import sys
from collections import Counter

from rich.console import Console

from tests.soak.faults import KINDS
from tests.soak.report import findings, table, told
from tests.soak.soak import WARM_UP, Report, Soak, soak


def main() -> int:
    """0 where nothing has grown and every answer was right."""
    arguments = _parser().parse_args()
    console = Console()
    console.print(f"seed {arguments.seed}; the faults come in the same order with --seed {arguments.seed}")
    report = asyncio.run(soak(arguments.minutes, arguments.faults, arguments.seed, lambda run: _say(console, run)))
    failures = [*findings(report.judged), *report.failures, *report.judge.failures]
    console.print(table(report.judged))
    console.print(_summary(report), highlight=False)
    for failure in failures:
        console.print(f"NOT PASSED: {failure}", markup=False, highlight=False)
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; five rounds are the least, about 6")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="what is random is drawn from it")
    parser.add_argument("--faults", type=_faults, default=KINDS, help=f"any of {','.join(KINDS)}; none")
    return parser


def _faults(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if unknown := set(kinds) - {*KINDS, "none"}:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(sorted(unknown))}")
    return tuple(kind for kind in kinds if kind != "none")


def _say(console: Console, run: Soak) -> None:
    report = run.report
    sample, number = report.samples[-1], len(report.samples)
    console.print(
        f"round {number}{' (warm-up)' if number <= WARM_UP else ''}: {sample.calls} calls of the witness, "
        f"{report.judge.streams} streams and {report.judge.tokens} tokens checked, faults {_told(report.faults.done)}; "
        f"{told(sample)}; {sample.counts['connections']} connections, {sample.counts['keys of jobs']} keys of jobs; "
        f"{report.judge.failed} wrong",
        highlight=False,
    )


def _summary(report: Report) -> str:
    return (
        f"callers that got what they should: {_told(report.judge.stories)}\n"
        f"faults: {_told(report.faults.done)}; the longest took {report.faults.longest_s:.1f} s; "
        f"this process itself stood still for {report.longest_pause_s:.1f} s at the most"
    )


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    sys.exit(main())
