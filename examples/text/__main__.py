"""Make pycode: prepare, train, export, measure, and write the card."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from examples.text import card, export, measure, model, prepare, train
from examples.text.export import Storage

PARTS = ("prepare", "train", "export", "measure", "card")

EXAMPLES = """\
examples:
  python -m examples.text                                  everything, about an hour on two cores
  python -m examples.text --only train --resume            go on from the newest checkpoint
  python -m examples.text --only train --resume --steps 2000   the same, but be done sooner
  python -m examples.text --only export measure card       after the training
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.text",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/pycode"), help="streams, checkpoints and graphs (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("models/pycode/1"), help="the folder to ship (%(default)s)")
    parser.add_argument(
        "--storage", type=Storage, choices=list(Storage), default=Storage.FP16, help="of the shipped weights"
    )
    parser.add_argument("--steps", type=int, default=train.Recipe().steps, help="training steps (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="(%(default)s)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    console = Console()
    torch.set_num_threads(chosen.threads)
    work: Path = chosen.work
    if "prepare" in chosen.only:
        console.rule("prepare")
        console.print(prepare.prepare(work).counts)
    prepared = prepare.load(work)
    if "train" in chosen.only:
        console.rule("train")
        recipe = replace(train.Recipe(), steps=chosen.steps)
        trained = train.train(prepared.train, prepared.held_out, recipe, work, resume=chosen.resume)
        model.save(trained, prepared.tokenizer, work / "weights")
    if "export" in chosen.only:
        console.rule("export")
        for storage in Storage:
            export.build(work / "weights", storage, work / "graphs" / storage)
            console.print(storage, export.size_bytes(work / "graphs" / storage), "bytes")
        export.ship(work / "graphs" / chosen.storage, chosen.storage, chosen.out)
    if "measure" in chosen.only:
        console.rule("measure")
        measures = measure.measure(prepared, work, chosen.storage, chosen.threads)
        measures.save(work / "measures.json")
        console.print(measures)
    if "card" in chosen.only:
        card.write(chosen.out, measure.load(work / "measures.json"), chosen.out.parent / "README.md")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, FloatingPointError, RuntimeError) as error:
        sys.exit(f"error: {error}")
