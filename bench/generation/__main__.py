"""Measures generation beside a bare loop and other engines, with the same weights on the same cores, in one run.

    python -m bench.generation                                all parts
    python -m bench.generation --quick                        the same, shorter and rougher
    python -m bench.generation closed --peers genai           one part, with one of the others
    python -m bench.generation --precisions stored int4 --set prefill_chunk_tokens=64

Contestants take turns within each round, and ratios are taken within the round. Millrace is measured whole: its client,
a frontend, a worker and Valkey; other servers with the same kind of client; libraries alone in a process.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from bench import machine
from bench.generation import chat, closed, contestants, long, models, settings, steps
from bench.generation.contestants import PEERS, STORED, Places
from bench.generation.match import Match
from bench.generation.settings import Settings
from bench.report import Part, make_report, show
from bench.run import Progress

PARTS: dict[str, Callable[[Match], Coroutine[Any, Any, Part]]] = {
    contestants.CLOSED: closed.run,
    contestants.CHAT: chat.run,
    contestants.LONG: long.run,
    steps.NAME: steps.run,
}
PRECISIONS = (STORED, "int8", "int4")
RESULT = Path("build/bench/generation.json")
WIDTH = 160
"""Of the output where it is no terminal."""


def main() -> int:
    options = _parse()
    cores = machine.use_cores(options.cores)
    chosen = settings.quick(cores=cores) if options.quick else Settings(cores=cores)
    chosen = replace(chosen, rounds=options.rounds or chosen.rounds, chat_rate=options.rate)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    watch = machine.Watch()
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        parts = asyncio.run(
            _run(options, chosen, Places(folder=Path(folder), environments=options.environments), console)
        )
    report = make_report(chosen, parts, watch)
    show(report, console)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(report.to_json())
    console.print(f"all that was measured: {options.json}")
    return 0


async def _run(options: argparse.Namespace, chosen: Settings, places: Places, console: Console) -> list[Part]:
    progress = Progress(console=console)
    weights = models.write(places.folder / "weights")
    progress.say("model", str(models.NAME), "written")
    async with AsyncExitStack() as lasting:
        match = Match(
            settings=chosen,
            weights=weights,
            places=places,
            progress=progress,
            contestants=contestants.all_of(
                chosen,
                weights,
                places,
                precisions=options.precisions,
                peers=options.peers,
                changes=options.changes,
                lasting=lasting,
            ),
            precisions=options.precisions,
            changes=options.changes,
        )
        return [await PARTS[name](match) for name in PARTS if name in options.parts]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.generation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=0, help="how often all take turns (3; quick: 1)")
    parser.add_argument("--cores", type=int, default=2, help="that everything shares (2)")
    parser.add_argument("--rate", type=float, default=0.0, help="the chat's arrivals a second (0.7 of the saturation)")
    parser.add_argument(
        "--precisions", nargs="*", choices=PRECISIONS, default=[STORED, "int8"], help="the service's (stored int8)"
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help=f"the others ({' '.join(PEERS)})")
    parser.add_argument(
        "--set",
        nargs="*",
        type=_change,
        default=[],
        dest="changes",
        metavar="KEY=VALUE",
        help="further keys of model.yaml, with values in YAML",
    )
    parser.add_argument(
        "--environments", type=Path, default=Path("build/peers"), help="the folder of the others' (build/peers)"
    )
    parser.add_argument("--json", type=Path, default=RESULT, help=f"where all that was measured goes ({RESULT})")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]}: {', '.join(PARTS)}")
    options.parts, options.changes = options.parts or list(PARTS), dict(options.changes)
    options.environments = options.environments.absolute()
    return options


def _change(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, yaml.safe_load(value)


if __name__ == "__main__":
    sys.exit(main())
