"""Make spoken: prepare, train, export, optimise, serve, and write the card."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from examples.speech import card, corpus, evaluate, export, measure, model, optimise, serve, train
from examples.speech.corpus import Counts
from examples.speech.features import log_mel
from examples.speech.score import Score
from examples.speech.voices import Part
from examples.training import history as histories
from examples.training import processes
from examples.training.checkpoint import load
from examples.training.history import History
from examples.training.loop import CHECKPOINT
from examples.training.processes import Group

PARTS = ("prepare", "train", "export", "optimise", "serve", "card")
STEPS, QUICK_STEPS = 1_200, 150
QUICK = Counts(train=400, validation=20, held_out=40)
CALIBRATION = 64
"""Training sounds that scale the activations of the graph of 8 bits, and that the export is checked on."""

EXAMPLES = """\
examples:
  python -m examples.speech                                everything, within 15 minutes on two cores
  python -m examples.speech --quick --work build/try --out build/try/models/spoken/1   the path, within 2
  python -m examples.speech --only train --resume          go on from the newest checkpoint
  python -m examples.speech --only train --processes 2     in two processes, or on two GPUs
  python -m examples.speech --only export optimise serve card    after the training
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.speech",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/spoken"), help="sounds, checkpoint, measures (%(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("models/spoken/1"),
        help="the folder to ship; the card goes beside it, and the graph of 8 bits as the next version (%(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="few sounds and steps: the path, not the quality")
    parser.add_argument("--steps", type=int, help=f"training steps ({STEPS}; {QUICK_STEPS} with --quick)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    parser.add_argument("--processes", type=int, default=1, help="that train together (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all processes (%(default)s)")
    chosen = parser.parse_args(given)
    if chosen.out.name != "1":
        parser.error("--out: its last part is the version, and must be 1")
    chosen.steps = chosen.steps or (QUICK_STEPS if chosen.quick else STEPS)
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    console = Console()
    _silence_the_exporter()
    torch.set_num_threads(chosen.threads)
    parts = {
        "prepare": _prepare,
        "train": _train,
        "export": _export,
        "optimise": _optimise,
        "serve": _serve,
        "card": _write_card,
    }
    for part in PARTS:
        if part in chosen.only:
            console.rule(part)
            parts[part](chosen, console)


def _prepare(chosen: argparse.Namespace, console: Console) -> None:
    corpus.prepare(QUICK if chosen.quick else Counts(), chosen.work)
    sounds = corpus.load(Part.TRAIN, chosen.work)
    console.print(f"{len(sounds):,} sounds to train on, {sounds.seconds:,.0f} s")


def _train(chosen: argparse.Namespace, console: Console) -> None:
    sounds, others = (corpus.load(part, chosen.work) for part in (Part.TRAIN, Part.VALIDATION))
    recipe = train.recipe(chosen.steps, bfloat16=has_bfloat16())
    processes.run(train.train, chosen.processes, chosen.threads, sounds, others, recipe, chosen.work, chosen.resume)
    history = History(**load(chosen.work / CHECKPOINT, asdict(recipe))["history"])
    histories.draw(history, {"wer": "word error rate"}, chosen.work / "curve.png")
    speed = measure.speed(sounds, recipe, history, Group(device="cuda" if torch.cuda.is_available() else "cpu"))
    console.print(f"{history.seconds:.0f} s: {speed}")
    measure.note(
        chosen.work / "measures.json",
        training={
            "recipe": asdict(recipe),
            "speed": asdict(speed) | {"share": speed.share},
            "corpus": {"train": len(sounds), "train_s": sounds.seconds},
            "weights": model.parameters(model.load(chosen.work / "weights.pt")),
            "seconds": history.seconds,
            "curve": history.curve,
            "processes": chosen.processes,
            "threads": chosen.threads,
        },
    )


def _export(chosen: argparse.Namespace, console: Console) -> None:
    difference = export.ship(model.load(chosen.work / "weights.pt"), _some_features(chosen.work), chosen.out)
    held_out = corpus.load_held_out(chosen.work / Part.HELD_OUT)
    graph = evaluate.Graph(chosen.out / "model.onnx")
    scores = evaluate.scores(held_out, graph.transcripts(evaluate.heard(held_out)))
    console.print(f"{chosen.out / 'model.onnx'}: {difference:.1e} from PyTorch; WER {_rates(scores)}")
    measure.note(chosen.work / "measures.json", difference=difference, offline=measure.of_scores(scores))


def _optimise(chosen: argparse.Namespace, console: Console) -> None:
    held_out = corpus.load_held_out(chosen.work / Part.HELD_OUT)
    target = chosen.out.with_name("2")
    judge = corpus.load(Part.VALIDATION, chosen.work)
    candidates = optimise.optimise(chosen.out, _some_features(chosen.work), judge, held_out, target)
    for one in candidates:
        size = f"{one.size_bytes / 1e6:.2f} MB, {one.milliseconds:.1f} ms"
        console.print(f"{one.name}: {size}, WER {one.score.wer:.2%}, {one.equal} transcripts as fp32")
    measure.note(chosen.work / "measures.json", candidates=[measure.of_candidate(one) for one in candidates])


def _serve(chosen: argparse.Namespace, console: Console) -> None:
    """Raises RuntimeError where the service hears something else than ONNX Runtime in the first version's place."""
    held_out = corpus.load_held_out(chosen.work / Part.HELD_OUT)
    features, name, served = evaluate.heard(held_out), chosen.out.parent.name, []
    folders = [folder for folder in (chosen.out, chosen.out.with_name("2")) if folder.exists()]
    found = serve.transcripts(chosen.out.parent.parent, name, [folder.name for folder in folders], held_out)
    for folder in folders:
        alone = evaluate.Graph(folder / "model.onnx").transcripts(features)
        equal = sum(one == other for one, other in zip(found[folder.name], alone, strict=True))
        scores = evaluate.scores(held_out, found[folder.name])
        console.print(f"version {folder.name} served: WER {_rates(scores)}, {equal} of {len(alone)} transcripts equal")
        if equal < len(alone):
            raise RuntimeError(f"the service hears {len(alone) - equal} sounds as ONNX Runtime alone does not")
        served.append(measure.Served(version=folder.name, scores=scores, equal=equal))
    measure.note(chosen.work / "measures.json", served=[measure.of_served(one) for one in served])


def _write_card(chosen: argparse.Namespace, console: Console) -> None:
    path = chosen.out.parent / "README.md"
    card.write(measure.read(chosen.work / "measures.json"), path)
    console.print(path)


def _some_features(work: Path) -> list[evaluate.Features]:
    sounds, front_end = corpus.load(Part.TRAIN, work), log_mel()
    return [front_end(sounds.sound(index)) for index in range(min(CALIBRATION, len(sounds)))]


def _rates(scores: dict[str, Score]) -> str:
    return ", ".join(f"{name} {score.wer:.2%}" for name, score in scores.items())


def has_bfloat16() -> bool:
    """Whether the machine multiplies bfloat16 faster than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


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
