"""Make digits_keras: train, export, serve, and say how good it is by Keras and by the service."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from examples import serving
from examples.image import data, evaluate, serve
from examples.image.data import Digits
from examples.image_keras import export, train
from examples.training import history as histories
from millrace.exporting.stages import Stages

PARTS = ("train", "export", "serve")
EPOCHS, QUICK_EPOCHS = 100, 8
NAME = "digits_keras"

EXAMPLES = """\
examples:
  python -m examples.image_keras                           everything, three minutes on two cores
  python -m examples.image_keras --quick --work build/try  the whole path, within 2; the first time installs TensorFlow
  python -m examples.image_keras --only train --resume     go on from the last epoch of a run that was killed
  python -m examples.image_keras --only export serve       after the training
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.image_keras",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/digits_keras"), help="all that it makes; models below (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="few epochs: the path, not the quality")
    parser.add_argument("--epochs", type=int, help=f"of training ({EPOCHS}; {QUICK_EPOCHS} with --quick)")
    parser.add_argument("--resume", action="store_true", help="go on with the training in the work folder")
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
    console = Console()
    chosen.work.mkdir(parents=True, exist_ok=True)
    split = data.read_split()
    train.write_split(split, chosen.work)
    if "train" in chosen.only:
        console.rule("train")
        _train(chosen, console)
    if "export" in chosen.only:
        console.rule("export")
        published = export.ship(chosen.work, chosen.version, chosen.environments, Stages(console))
        console.print(f"{published.folder}: {published.parity.absolute:.1e} from Keras", soft_wrap=True)
    if "serve" in chosen.only:
        console.rule("serve")
        _serve(chosen, split.held_out, console)


def _train(chosen: argparse.Namespace, console: Console) -> None:
    interpreter = train.python(chosen.environments, Stages(console))
    trained = train.train(
        interpreter, chosen.work, console, epochs=chosen.epochs, threads=chosen.threads, resume=chosen.resume
    )
    history = trained.history
    histories.draw(history, {"accuracy": "validation accuracy"}, chosen.work / "curve.png")
    rate = f"{history.rate:,.0f} images/s, {trained.share:.1%} of the matmul peak"
    console.print(f"{trained.weights:,} weights, {history.seconds:.0f} s: {rate}")


def _serve(chosen: argparse.Namespace, held_out: Digits, console: Console) -> None:
    """Raises RuntimeError where the service's figures are not those of Keras."""
    with np.load(chosen.work / "predictions.npz") as arrays:
        by_keras = evaluate.score(arrays["probabilities"].argmax(1), held_out.label)
    models, out = chosen.work / "models", chosen.work / "evaluation"
    result = serving.evaluated(models, NAME, ["1"], chosen.work / train.HELD_OUT, out)["1"]
    serve.same(by_keras, result)
    console.print(f"by Keras and by the service: accuracy {by_keras.accuracy:.2%}, and the same confusion matrix")
    console.print(f"{out / '1' / 'report.html'}", soft_wrap=True)


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
