"""What the commands of the stories share: their options, and their parts one after another."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

Part = Callable[[argparse.Namespace, Console], None]


def parser(story: str, description: str | None, parts: Mapping[str, Part], examples: str) -> argparse.ArgumentParser:
    """With the options that every story has."""
    made = argparse.ArgumentParser(
        prog=f"python -m examples.{story}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART", help=f"of {', '.join(parts)}")
    made.add_argument("--quick", action="store_true", help="less data, few steps: the path, not the quality")
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    return made


def add_training(made: argparse.ArgumentParser, steps: str, *, threads: int = os.cpu_count() or 1) -> None:
    """Options of a training in PyTorch; `steps` says how many there are otherwise."""
    made.add_argument("--steps", type=int, help=f"training steps ({steps})")
    made.add_argument("--processes", type=int, default=1, help="that train together (%(default)s)")
    made.add_argument("--threads", type=int, default=threads, help="of all processes (%(default)s)")


def add_folders(made: argparse.ArgumentParser, work: str | None, model: str) -> None:
    """Where it is made, and where to; `completed` fills in the second. Without `work` the caller says which."""
    where = "build/RECIPE" if work is None else "%(default)s"
    made.add_argument("--work", type=Path, default=work, help=f"data, checkpoint, measures, pages ({where})")
    made.add_argument(
        "--out",
        type=Path,
        metavar=f"…/{model}/1",
        help="the folder to ship; the card goes beside it, and the smaller graph as the next version "
        f"(models/{model}/1 in the work folder)",
    )


def completed(made: argparse.ArgumentParser, chosen: argparse.Namespace, model: str) -> argparse.Namespace:
    """Fills in `out`. Ends the process with a message where that is no folder of this model's first version."""
    chosen.out = chosen.out or chosen.work / "models" / model / "1"
    if chosen.out.absolute().parts[-2:] != (model, "1"):
        made.error(f"--out: must end in {model}/1, the model's name and the version")
    return chosen


def run(parts: Mapping[str, Part], chosen: argparse.Namespace, title: str = "") -> None:
    """The chosen parts in their order."""
    console = Console()
    for name, part in parts.items():
        if name in chosen.only:
            console.rule(f"{title}{name}")
            part(chosen, console)


def end(main: Callable[[], None]) -> None:
    """Calls it; what can be expected to go wrong becomes one line and status 1."""
    try:
        main()
    except (FileNotFoundError, FloatingPointError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
