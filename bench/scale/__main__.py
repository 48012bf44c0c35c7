"""Measures what the service itself costs, and how that grows, with a model that only sleeps.

    python -m bench.scale                     all parts, about 10 minutes
    python -m bench.scale --quick             the same, smaller and rougher: about 2 minutes
    python -m bench.scale growth held         two parts

All processes share a few cores with the load itself, so that rates say less than the processor time that each request
and each token takes of each process: docs/scale.md says what follows for larger fleets.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console

from bench import machine
from bench.scale import plot, projection, settings
from bench.scale.parts import PARTS, costs, growth
from bench.scale.report import Part, Report, make_report
from bench.scale.stage import Run

RESULT, TABLES, PICTURE = "scale.json", "scale.md", "scale.svg"
WIDTH = 160
"""Of the output where it is no terminal."""


def main() -> int:
    options = _parse()
    cores = machine.use_cores(options.cores)
    chosen = settings.quick(cores=cores) if options.quick else settings.Settings(cores=cores)
    _allow_files()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    watch = machine.Watch()
    with tempfile.TemporaryDirectory(prefix="millrace-scale-") as folder:
        run = Run(settings=chosen, folder=Path(folder), console=console)
        parts = [uvloop.run(PARTS[name](run)) for name in PARTS if name in options.parts]
    by_name = {part.name: part for part in parts}
    if costs.NAME in by_name:
        parts.append(projection.project(by_name[costs.NAME].data))
    _write(make_report(chosen, parts, watch), by_name, options.out, console)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--cores", type=int, default=2, help="that everything shares (2)")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="the folder of results (build/bench)")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]}: {', '.join(PARTS)}")
    options.parts = options.parts or list(PARTS)
    return options


def _allow_files() -> None:
    """As many open files as this user may have, for all processes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _write(report: Report, parts: dict[str, Part], folder: Path, console: Console) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text(report.to_json())
    (folder / TABLES).write_text(report.markdown())
    console.print(report.markdown(), highlight=False, markup=False, soft_wrap=True)
    console.print(f"all that was measured: {folder / RESULT}; the tables: {folder / TABLES}")
    if {growth.NAME, costs.NAME} <= parts.keys():
        plot.draw(parts[growth.NAME].data, parts[costs.NAME].data, folder / PICTURE)
        console.print(f"the picture: {folder / PICTURE}")


if __name__ == "__main__":
    sys.exit(main())
