"""Make digits: train, export, optimise, serve, and write the card."""

import argparse
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from rich.console import Console

from examples import command, optimise, record, serving
from examples.image import card, data, export, measure, model, train
from examples.training import history as histories
from examples.training import processes, speed
from examples.training.checkpoint import load
from examples.training.history import History
from examples.training.loop import CHECKPOINT
from examples.training.processes import Group
from millrace.optimizing.order import Method

STEPS, QUICK_STEPS = 2_000, 200
METHODS = (Method.GRAPH, Method.FP16, Method.INT8_STATIC)
CALIBRATION = 256
"""Training images."""
MOST_LOSS = 0.01
"""Of the validation images' accuracy."""
NAME, HELD_OUT, MEASURES = "digits", "held_out.npz", "measures.json"

EXAMPLES = """\
  python -m examples.image                                 everything, two minutes on two cores
  python -m examples.image --quick --work build/try        the whole path, within 2
  python -m examples.image --only train --resume           go on from the newest checkpoint
  python -m examples.image --only train --processes 2      in two processes, or on two GPUs
  python -m examples.image --only export optimise serve card    after the training
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command.parser("image", __doc__, PARTS, EXAMPLES)
    command.add_folders(parser, "build/digits", NAME)
    command.add_training(parser, f"{STEPS:,}; {QUICK_STEPS} with --quick", threads=1)  # steps are too small for more
    chosen = command.completed(parser, parser.parse_args(given), NAME)
    chosen.steps = chosen.steps or (QUICK_STEPS if chosen.quick else STEPS)
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    torch.set_num_threads(chosen.threads)
    _silence_the_exporter()
    chosen.work.mkdir(parents=True, exist_ok=True)
    command.run(PARTS, chosen)


def _train(chosen: argparse.Namespace, console: Console) -> None:
    split, cuda = data.read_split(), torch.cuda.is_available()
    recipe = train.recipe(chosen.steps, bfloat16=cuda and torch.cuda.is_bf16_supported())
    given = (split.train, split.validation, recipe, chosen.work, chosen.resume)
    processes.run(train.train, chosen.processes, chosen.threads, *given)
    history = History(**load(chosen.work / CHECKPOINT, asdict(recipe))["history"])
    histories.draw(history, {"accuracy": "validation accuracy"}, chosen.work / "curve.png")
    task = train.Reading(split.train, split.validation, recipe, Group(device=speed.device()))
    found = speed.speed(task, recipe, history)
    console.print(f"{history.seconds:.0f} s: {found}")
    training = measure.of_training(recipe, history, found, chosen.processes, chosen.threads)
    record.note(chosen.work / MEASURES, training=training, weights=model.parameters(task.network))


def _export(chosen: argparse.Namespace, console: Console) -> None:
    split = data.read_split()
    others = np.concatenate([split.train.x, split.validation.x])
    difference = export.ship(model.load(chosen.work / "weights.pt"), others, chosen.out)
    split.held_out.save(chosen.out.parent / HELD_OUT)
    found = measure.of_graph(chosen.out / "model.onnx", split)
    right = f"{np.trace(found['score']['confusion'])} of {len(split.held_out)} held-out images right"
    console.print(f"{chosen.out / 'model.onnx'}: {difference:.1e} from PyTorch; {right}", soft_wrap=True)
    record.note(chosen.work / MEASURES, difference=difference, graph=found)


def _optimise(chosen: argparse.Namespace, console: Console) -> None:
    """The validation images judge, and training images scale the activations: the held-out ones take no part."""
    split, judging, calibration = data.read_split(), chosen.work / "validation.npz", chosen.work / "calibration.npz"
    split.validation.save(judging)
    split.train.pick(np.arange(CALIBRATION)).save(calibration)
    lines = optimise.optimise(
        chosen.out,
        METHODS,
        judging,
        console,
        most_loss=MOST_LOSS,
        quick=chosen.quick,
        threads=chosen.threads,
        calibration=calibration,
    )
    record.note(chosen.work / MEASURES, optimised=lines)


def _serve(chosen: argparse.Namespace, console: Console) -> None:
    """Raises RuntimeError where the service's figures are not those of the graph alone."""
    versions = [folder for folder in (chosen.out, chosen.out.with_name("2")) if folder.exists()]
    names = [folder.name for folder in versions]
    models, held_out = chosen.out.parent.parent, chosen.out.parent / HELD_OUT
    results = serving.evaluated(models, chosen.out.parent.name, names, held_out, chosen.work / "evaluation")
    served = []
    for folder in versions:
        result = results[folder.name].result
        served.append(measure.of_served(folder, result, data.read_split().held_out))
        accuracy = result.system.measures[0].value
        console.print(f"version {folder.name} served: accuracy {accuracy:.2%}, and each count as by ONNX Runtime alone")
    record.note(chosen.work / MEASURES, served=served)
    console.print(f"{chosen.work / 'evaluation' / '1' / 'report.html'}", soft_wrap=True)


def _write_card(chosen: argparse.Namespace, console: Console) -> None:
    path = chosen.out.parent / "README.md"
    card.write(record.read(chosen.work / MEASURES), path)
    console.print(str(path), soft_wrap=True)


def _silence_the_exporter() -> None:
    """It warns of operators that this graph does not have, and of PyTorch's own deprecated calls."""
    for name in ("torch.onnx", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")


PARTS: dict[str, command.Part] = {
    "train": _train,
    "export": _export,
    "optimise": _optimise,
    "serve": _serve,
    "card": _write_card,
}

if __name__ == "__main__":
    command.end(main)
