"""Make digits_keras: train, export, serve, and say how good it is by Keras and by the service."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from examples import command, serving
from examples.image import data, evaluate, serve
from examples.image_keras import export, train
from examples.training import history as histories
from millrace.exporting.stages import Stages

EPOCHS, QUICK_EPOCHS = 100, 8
NAME = "digits_keras"

EXAMPLES = """\
  python -m examples.image_keras                           everything, three minutes on two cores
  python -m examples.image_keras --quick --work build/try  the whole path, within 2; the first time installs TensorFlow
  python -m examples.image_keras --only train --resume     go on from the last epoch of a run that was killed
  python -m examples.image_keras --only export serve       after the training
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command.parser("image_keras", __doc__, PARTS, EXAMPLES)
    parser.add_argument(
        "--work", type=Path, default=Path("build/digits_keras"), help="all that it makes; models below (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, help=f"of training ({EPOCHS}; {QUICK_EPOCHS} with --quick)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of TensorFlow (%(default)s)")
    parser.add_argument(
        "--environments",
        type=Path,
        default=Path(os.environ.get("MILLRACE_ENVIRONMENTS", "~/.cache/millrace/environments")).expanduser(),
        help="where TensorFlow is installed, apart from all else (%(default)s)",
    )
    chosen = parser.parse_args(given)
    chosen.epochs = chosen.epochs or (QUICK_EPOCHS if chosen.quick else EPOCHS)
    chosen.version = chosen.work / "models" / NAME / "1"
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    chosen.work.mkdir(parents=True, exist_ok=True)
    train.write_split(data.read_split(), chosen.work)
    command.run(PARTS, chosen)


def _train(chosen: argparse.Namespace, console: Console) -> None:
    interpreter = train.python(chosen.environments, Stages(console))
    trained = train.train(
        interpreter, chosen.work, console, epochs=chosen.epochs, threads=chosen.threads, resume=chosen.resume
    )
    history = trained.history
    histories.draw(history, {"accuracy": "validation accuracy"}, chosen.work / "curve.png")
    rate = f"{history.rate:,.0f} images/s, {trained.share:.1%} of the matmul peak"
    console.print(f"{trained.weights:,} weights, {history.seconds:.0f} s: {rate}")


def _export(chosen: argparse.Namespace, console: Console) -> None:
    published = export.ship(chosen.work, chosen.version, chosen.environments, Stages(console))
    console.print(f"{published.folder}: {published.parity.absolute:.1e} from Keras", soft_wrap=True)


def _serve(chosen: argparse.Namespace, console: Console) -> None:
    """Raises RuntimeError where the service's figures are not those of Keras."""
    with np.load(chosen.work / "predictions.npz") as arrays:
        by_keras = evaluate.score(arrays["probabilities"].argmax(1), data.read_split().held_out.label)
    models, out = chosen.work / "models", chosen.work / "evaluation"
    result = serving.evaluated(models, NAME, ["1"], chosen.work / train.HELD_OUT, out)["1"].result
    serve.same(by_keras, result)
    console.print(f"by Keras and by the service: accuracy {by_keras.accuracy:.2%}, and the same confusion matrix")
    console.print(f"{out / '1' / 'report.html'}", soft_wrap=True)


PARTS: dict[str, command.Part] = {"train": _train, "export": _export, "serve": _serve}

if __name__ == "__main__":
    command.end(main)
