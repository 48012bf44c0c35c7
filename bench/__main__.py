"""Measures Millrace against ONNX Runtime alone, on the same models and the same cores, in one run.

    python -m bench                                all parts, about 14 minutes
    python -m bench --quick                        the same, shorter and rougher: about 3 minutes
    python -m bench tensors latency                two parts
    python -m bench relay --rounds 1 --json r.json one part, once, and all that it measured

What counts is the ratio: each round measures the bare runtime and the service one after the other, and the ratio is
taken within the round. Everything shares the same cores: the client, one frontend, one worker, Valkey.
"""

import argparse
import asyncio
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bench import machine, plot, settings
from bench.parts import PARTS
from bench.report import Report, make_report, show
from bench.run import Run

RESULT, PICTURE = "bench.json", "load.svg"
WIDTH = 130
"""Of the output where it is no terminal."""


def main() -> int:
    options = _parse()
    cores = machine.use_cores(options.cores)
    chosen = settings.quick(cores=cores) if options.quick else settings.Settings(cores=cores)
    if options.rounds:
        chosen = replace(chosen, rounds=options.rounds)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    watch = machine.Watch()
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        run = Run(settings=chosen, folder=Path(folder), console=console)
        parts = [asyncio.run(PARTS[name](run)) for name in PARTS if name in options.parts]
    report = make_report(chosen, parts, watch)
    show(report, console)
    _write(report, options, console)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help="how often bare and service take turns (3; quick: 1)")
    parser.add_argument("--cores", type=int, default=2, help="that everything shares (2)")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="the folder of results (build/bench)")
    parser.add_argument("--json", type=Path, help=f"where all that was measured goes (OUT/{RESULT})")
    parser.add_argument(
        "--plot", type=Path, help=f"where the picture of the open loop goes, .svg or .png (OUT/{PICTURE})"
    )
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]}: {', '.join(PARTS)}")
    options.parts = options.parts or list(PARTS)
    return options


def _write(report: Report, options: argparse.Namespace, console: Console) -> None:
    target = options.json or options.out / RESULT
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(report.to_json())
    console.print(f"all that was measured: {target}")
    points = next((part.data["open_loop"] for part in report.parts if "open_loop" in part.data), None)
    if points is None:
        return
    picture = options.plot or options.out / PICTURE
    plot.draw(points, picture)
    console.print(f"the open loop's picture: {picture}")


if __name__ == "__main__":
    sys.exit(main())
