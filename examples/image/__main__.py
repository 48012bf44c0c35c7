"""Make digits: train, export, optimise, serve, and write the card."""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from examples import serving
from examples.image import card, data, export, measure, model, optimise, train
from examples.image.data import Split
from examples.training import history as histories
from examples.training import processes
from examples.training.checkpoint import load
from examples.training.history import History
from examples.training.loop import CHECKPOINT
from millrace.cli.optimize import LEAST_COLUMNS, table
from millrace.optimizing import report

PARTS = ("train", "export", "optimise", "serve", "card")
STEPS, QUICK_STEPS = 2_000, 200
HELD_OUT, MEASURES = "held_out.npz", "measures.json"

EXAMPLES = """\
examples:
  python -m examples.image                                 everything, two minutes on two cores
  python -m examples.image --quick --work build/try --out build/try/models/digits/1    the whole path, within 2
  python -m examples.image --only train --resume           go on from the newest checkpoint
  python -m examples.image --only train --processes 2      in two processes, or on two GPUs
  python -m examples.image --only export optimise serve card    after the training
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
        "--work", type=Path, default=Path("build/digits"), help="checkpoint, weights, measures, pages (%(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/digits/models/digits/1"),
        help="the folder to ship; the card and the held-out images go beside it, and the smaller graph as the next "
        "version (%(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="few steps: the path, not the quality")
    parser.add_argument("--steps", type=int, help=f"training steps ({STEPS}; {QUICK_STEPS} with --quick)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    parser.add_argument("--processes", type=int, default=1, help="that train together (%(default)s)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of all processes (%(default)s: steps are too small for more)"
    )
    chosen = parser.parse_args(given)
    if chosen.out.absolute().parts[-2:] != ("digits", "1"):
        parser.error("--out: must end in digits/1, the model's name and the version")
    chosen.steps = chosen.steps or (QUICK_STEPS if chosen.quick else STEPS)
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    console = Console()
    torch.set_num_threads(chosen.threads)
    _silence_the_exporter()
    chosen.work.mkdir(parents=True, exist_ok=True)
    split = data.read_split()
    parts = {"train": _train, "export": _export, "optimise": _optimise, "serve": _serve, "card": _write_card}
    for part in PARTS:
        if part in chosen.only:
            console.rule(part)
            parts[part](chosen, split, console)


def _train(chosen: argparse.Namespace, split: Split, console: Console) -> None:
    cuda = torch.cuda.is_available()
    recipe = train.recipe(chosen.steps, bfloat16=cuda and torch.cuda.is_bf16_supported())
    given = (split.train, split.validation, recipe, chosen.work, chosen.resume)
    processes.run(train.train, chosen.processes, chosen.threads, *given)
    history = History(**load(chosen.work / CHECKPOINT, asdict(recipe))["history"])
    histories.draw(history, {"accuracy": "validation accuracy"}, chosen.work / "curve.png")
    speed = train.speed(split.train, recipe, history, "cuda" if cuda else "cpu")
    console.print(f"{history.seconds:.0f} s: {speed}")
    training = measure.of_training(recipe, history, speed, chosen.processes, chosen.threads)
    weights = model.parameters(model.load(chosen.work / "weights.pt"))
    measure.note(chosen.work / MEASURES, training=training, weights=weights)


def _export(chosen: argparse.Namespace, split: Split, console: Console) -> None:
    others = np.concatenate([split.train.x, split.validation.x])
    difference = export.ship(model.load(chosen.work / "weights.pt"), others, chosen.out)
    split.held_out.save(chosen.out.parent / HELD_OUT)
    found = measure.of_graph(chosen.out / "model.onnx", split)
    right = f"{np.trace(found['score']['confusion'])} of {len(split.held_out)} held-out images right"
    console.print(f"{chosen.out / 'model.onnx'}: {difference:.1e} from PyTorch; {right}", soft_wrap=True)
    measure.note(chosen.work / MEASURES, difference=difference, graph=found)


def _optimise(chosen: argparse.Namespace, split: Split, console: Console) -> None:
    outcome = optimise.optimise(split, chosen.work, chosen.out, console, quick=chosen.quick, threads=chosen.threads)
    Console(width=max(console.width, LEAST_COLUMNS), highlight=False).print(table(outcome))
    for method, verdict in outcome.choice.verdicts.items():
        console.print(f"{method.value:<12} {verdict}")
    lines = list(report.markdown(outcome.candidates, outcome.choice))
    measure.note(chosen.work / MEASURES, optimised=lines)


def _serve(chosen: argparse.Namespace, split: Split, console: Console) -> None:
    """Raises RuntimeError where the service's figures are not those of the graph alone."""
    versions = [folder for folder in (chosen.out, chosen.out.with_name("2")) if folder.exists()]
    names = [folder.name for folder in versions]
    models, held_out = chosen.out.parent.parent, chosen.out.parent / HELD_OUT
    results = serving.evaluated(models, chosen.out.parent.name, names, held_out, chosen.work / "evaluation")
    served = []
    for folder in versions:
        served.append(measure.of_served(folder, results[folder.name], split.held_out))
        accuracy = results[folder.name].system.measures[0].value
        console.print(f"version {folder.name} served: accuracy {accuracy:.2%}, and each count as by ONNX Runtime alone")
    measure.note(chosen.work / MEASURES, served=served)
    console.print(f"{chosen.work / 'evaluation' / '1' / 'report.html'}", soft_wrap=True)


def _write_card(chosen: argparse.Namespace, split: Split, console: Console) -> None:
    path = chosen.out.parent / "README.md"
    card.write(measure.read(chosen.work / MEASURES), path)
    console.print(str(path), soft_wrap=True)


def _silence_the_exporter() -> None:
    """It warns of operators that this graph does not have, and of PyTorch's own deprecated calls."""
    for name in ("torch.onnx", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, FloatingPointError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
