"""`make fuzz`: gives every door a share of the inputs, and prints one table.

python -m tests.fuzz                            100,000 inputs
python -m tests.fuzz --only generate,wire --inputs 5000 --seed 7
python -m tests.fuzz --replay build/fuzz/7/generate-1234.input
python -m tests.fuzz --markdown /tmp/table.md
"""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz.child import load
from tests.fuzz.drive import Found, Tally
from tests.fuzz.targets import TARGETS, shares
from tests.fuzz.watch import watch

HEADINGS = ("target", "inputs", "accepted", "refused", "slowest ms", "findings")
FINDINGS = Path("build/fuzz")
SHOWN_CHARACTERS = 1_500


def main() -> int:
    """0 where nothing was found."""
    arguments = _parser().parse_args()
    if arguments.replay:
        return _replay(arguments.replay, arguments.seed)
    console, folder = Console(highlight=False), FINDINGS / str(arguments.seed)
    console.print(f"seed {arguments.seed}; the same inputs again: --seed {arguments.seed} --inputs {arguments.inputs}")
    began, tallies = time.monotonic(), []
    for name, count in shares(arguments.inputs, arguments.only.split(",") if arguments.only else list(TARGETS)).items():
        tallies.append(_watch(console, name, arguments.seed, count, arguments.seconds_per_input))
        _report(console, tallies[-1], folder)
    console.print(_table(tallies))
    found = sum(len(tally.findings) for tally in tallies)
    inputs = sum(tally.inputs for tally in tallies)
    console.print(f"{inputs:,} inputs in {time.monotonic() - began:.0f} s, {found} findings")
    if arguments.markdown:
        arguments.markdown.write_text(_markdown(tallies))
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="for all targets together")
    parser.add_argument("--only", default="", metavar="TARGET,…", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="what is random is drawn from it")
    parser.add_argument("--seconds-per-input", type=float, default=2.0, help="of the processor; more is a finding")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="runs one saved input, here, and shows what it does"
    )
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the table there too")
    return parser


def _watch(console: Console, name: str, seed: int, count: int, seconds: float) -> Tally:
    with console.status(name) as status:
        return watch(
            TARGETS[name], seed, count, seconds=seconds, on_progress=lambda index: status.update(f"{name} {index:,}")
        )


def _report(console: Console, tally: Tally, folder: Path) -> None:
    console.print(f"{tally.target}: {tally.inputs:,} inputs, {len(tally.findings)} findings")
    seen: set[str] = set()
    for found in tally.findings:
        path = _save(found, folder)
        if found.kind not in seen:
            console.print(f"  {found.kind}: {path}\n{found.text[-SHOWN_CHARACTERS:]}", markup=False)
        seen.add(found.kind)


def _save(found: Found, folder: Path) -> Path:
    """The input, and beside it what it did; what was found behind the last input has none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found.target}-{found.index if found.index >= 0 else 'end'}.input"
    path.with_suffix(".txt").write_text(f"{found.kind}\n{found.text}")
    if found.index < 0:
        return path.with_suffix(".txt")
    data = found.data
    path.write_bytes(load(TARGETS[found.target])(int(folder.name)).make(found.index) if data is None else data)
    return path


def _replay(path: Path, seed: int) -> int:
    target = load(TARGETS[path.name.rpartition("-")[0]])(seed)
    with ExitStack() as stack:
        target.open(stack)
        try:
            print("accepted" if target.run(path.read_bytes()) else "refused")
        except BaseException:
            traceback.print_exc()
            return 1
    return 0


def _cells(tally: Tally) -> tuple[str, ...]:
    counts = (tally.inputs, tally.accepted, tally.refused, round(tally.slowest_s * 1000), len(tally.findings))
    return (tally.target, *(f"{count:,}" for count in counts))


def _total(tallies: Sequence[Tally]) -> Tally:
    return Tally(
        target="all",
        accepted=sum(tally.accepted for tally in tallies),
        refused=sum(tally.refused for tally in tallies),
        slowest_s=max(tally.slowest_s for tally in tallies),
        findings=[found for tally in tallies for found in tally.findings],
    )


def _table(tallies: Sequence[Tally]) -> Table:
    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for tally in (*tallies, _total(tallies)):
        table.add_row(*_cells(tally))
    return table


def _markdown(tallies: Sequence[Tally]) -> str:
    lines = [HEADINGS, ("---", *("---:",) * (len(HEADINGS) - 1))]
    lines += [_cells(tally) for tally in (*tallies, _total(tallies))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
