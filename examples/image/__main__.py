"""Make digits: train, export, measure, and write the card."""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from examples.image import card, data, export, measure, model, train

PARTS = ("train", "export", "measure", "card")

EXAMPLES = """\
examples:
  python -m examples.image                                 everything, about a minute on one core
  python -m examples.image --only train --resume           go on from the newest checkpoint
  python -m examples.image --only export measure card      after the training
  python -m examples.image --steps 50 --work build/try --out build/try/1   try the whole path in seconds
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.image",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/digits"), help="checkpoint, weights and measures (%(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("models/digits/1"),
        help="the folder to ship; the card and the held-out images go beside it (%(default)s)",
    )
    parser.add_argument("--steps", type=int, default=train.Recipe().steps, help="training steps (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    parser.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    console = Console()
    torch.set_num_threads(chosen.threads)
    _silence_the_exporter()
    work: Path = chosen.work
    split = data.read_split()
    if "train" in chosen.only:
        console.rule("train")
        recipe = replace(train.Recipe(), steps=chosen.steps)
        trained = train.train(split.train, split.validation, recipe, work, resume=chosen.resume)
        model.save(trained, work / "weights.pt")
    if "export" in chosen.only:
        console.rule("export")
        others = np.concatenate([split.train.x, split.validation.x])
        difference = export.ship(model.load(work / "weights.pt"), others, chosen.out)
        split.held_out.save(chosen.out.parent / "held_out.npz")
        console.print(f"{chosen.out / 'model.onnx'}: {difference:.1e} from PyTorch")
    if "measure" in chosen.only:
        console.rule("measure")
        measures = measure.measure(split, work, chosen.out)
        measures.save(work / "measures.json")
        console.print(measures)
    if "card" in chosen.only:
        card.write(measure.load(work / "measures.json"), chosen.out.parent / "README.md")


def _silence_the_exporter() -> None:
    """It warns of operators that this graph does not have, and of PyTorch's own deprecated calls."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, FloatingPointError, RuntimeError) as error:
        sys.exit(f"error: {error}")
