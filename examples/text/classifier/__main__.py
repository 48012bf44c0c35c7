"""Make origin: prepare, train, export, optimise, serve, and write the card."""

import argparse
import logging
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from examples.serving import evaluated
from examples.text import optimise, pace, record, serve, tokenizer
from examples.text.classifier import card, data, evaluate, export, model, tokens, train
from examples.text.classifier.data import Part
from examples.text.classifier.evaluate import Graph
from examples.text.classifier.tokens import Encoded
from examples.training import history as histories
from examples.training import processes
from examples.training.checkpoint import load
from examples.training.history import History
from examples.training.loop import CHECKPOINT
from examples.training.processes import Group

PARTS = ("prepare", "train", "export", "optimise", "serve", "card")
STEPS, QUICK_STEPS = 600, 60
MOST_LOSS = 0.01
"""Of the validation snippets' accuracy."""
MEASURES = "measures.json"
QUICK_EVERY = 4
"""Of the validation and the held-out snippets one in so many is asked."""
RESAMPLES, QUICK_RESAMPLES = 1_000, 100

EXAMPLES = """\
examples:
  python -m examples.text.classifier                           everything, a few minutes on two cores
  python -m examples.text.classifier --quick --work build/try  the whole path
  python -m examples.text.classifier --only train --resume     go on from the newest checkpoint
  python -m examples.text.classifier --only train --processes 2    in two processes, or on two GPUs
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.text.classifier",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/text/classifier"), help="snippets, checkpoint, measures (%(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the folder to ship; the card goes beside it, and the smaller graph as the next version "
        "(models/origin/1 in the work folder)",
    )
    parser.add_argument("--quick", action="store_true", help="few steps: the path, not the quality")
    parser.add_argument("--steps", type=int, help=f"training steps ({STEPS}; {QUICK_STEPS} with --quick)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    parser.add_argument("--processes", type=int, default=1, help="that train together (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all processes (%(default)s)")
    chosen = parser.parse_args(given)
    chosen.out = chosen.out or chosen.work / "models" / "origin" / "1"
    if chosen.out.name != "1":
        parser.error("--out: its last part is the version, and must be 1")
    chosen.steps = chosen.steps or (QUICK_STEPS if chosen.quick else STEPS)
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    console = Console()
    torch.set_num_threads(chosen.threads)
    _silence_the_exporter()
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
            console.rule(f"classifier: {part}")
            parts[part](chosen, console)


def _prepare(chosen: argparse.Namespace, console: Console) -> None:
    read, every = data.read(), QUICK_EVERY if chosen.quick else 1
    snippets = {part: read[part][:: 1 if part is Part.TRAIN else every] for part in Part}
    chosen.work.mkdir(parents=True, exist_ok=True)
    for part in Part:
        data.write(snippets[part], _rows(chosen.work, part))
    tokens.learn([one.text for one in snippets[Part.TRAIN]]).save(str(chosen.work / "tokenizer.json"))
    counts = {part.value: len(snippets[part]) for part in Part}
    files = {part.value: len({one.path for one in snippets[part]}) for part in Part}
    console.print(counts)
    record.note(chosen.work / MEASURES, snippets=counts, files=files, python=platform.python_version())


def _train(chosen: argparse.Namespace, console: Console) -> None:
    plan = train.recipe(chosen.steps, bfloat16=pace.has_bfloat16())
    snippets, validation = (_encoded(chosen.work, part) for part in (Part.TRAIN, Part.VALIDATION))
    given = (snippets, validation, plan, chosen.work, chosen.resume)
    processes.run(train.train, chosen.processes, chosen.threads, *given)
    history = History(**load(chosen.work / CHECKPOINT, asdict(plan))["history"])
    histories.draw(history, {"accuracy": "validation accuracy"}, chosen.work / "curve.png")
    task = train.Naming(snippets, validation, plan, Group(device=pace.device()))
    speed = pace.pace(task, plan, history, pace.device())
    console.print(f"{history.seconds:.0f} s: {speed}")
    record.note(
        chosen.work / MEASURES,
        recipe=asdict(plan),
        curve=history.curve,
        speed=asdict(speed) | {"share": speed.share},
        weights=model.parameters(task.network),
        run={"seconds": history.seconds, "processes": chosen.processes, "threads": chosen.threads},
    )


def _export(chosen: argparse.Namespace, console: Console) -> None:
    known, held_out = (_encoded(chosen.work, part) for part in (Part.TRAIN, Part.HELD_OUT))
    words = tokenizer.load(chosen.work)
    difference = export.ship(model.load(chosen.work / "weights.pt"), words, known, chosen.out)
    alone = evaluate.score(Graph(chosen.out / "model.onnx").labels(held_out), held_out.labels)
    guessed = evaluate.score(evaluate.baseline(known, held_out), held_out.labels)
    console.print(f"{chosen.out / 'model.onnx'}: {difference:.1e} from PyTorch", soft_wrap=True)
    for name, one in (("origin", alone), ("naive Bayes", guessed)):
        console.print(f"{name}: accuracy {one.accuracy:.2%}, F1 {one.f1:.4f}")
    found = {"difference": difference, "baseline": asdict(guessed), "alone": asdict(alone)}
    record.note(chosen.work / MEASURES, **found)


def _optimise(chosen: argparse.Namespace, console: Console) -> None:
    lines = optimise.optimise(
        chosen.out,
        _rows(chosen.work, Part.VALIDATION),
        console,
        most_loss=MOST_LOSS,
        quick=chosen.quick,
        threads=chosen.threads,
    )
    record.note(chosen.work / MEASURES, candidates=lines)


def _serve(chosen: argparse.Namespace, console: Console) -> None:
    """Raises RuntimeError where the service's figures are not those of the graph alone."""
    folders, held_out = serve.versions(chosen.out), _encoded(chosen.work, Part.HELD_OUT)
    models, names = chosen.out.parents[1], [folder.name for folder in folders]
    pages, listing = chosen.work / "evaluation", _rows(chosen.work, Part.HELD_OUT)
    resamples, served = QUICK_RESAMPLES if chosen.quick else RESAMPLES, []
    results = evaluated(models, chosen.out.parent.name, names, listing, pages, resamples=resamples)
    for folder in folders:
        result = results[folder.name]
        alone = evaluate.score(Graph(folder / "model.onnx").labels(held_out), held_out.labels)
        serve.same({"accuracy": alone.accuracy, "f1_macro": alone.f1}, result)
        evaluate.same_confusion(alone, result)
        console.print(f"version {folder.name}, alone and served: accuracy {alone.accuracy:.2%}, F1 {alone.f1:.4f}")
        verdict = result.comparison.verdict if result.comparison else ""
        served.append({"version": folder.name, "verdict": verdict, **asdict(alone)})
    record.note(chosen.work / MEASURES, served=served)
    console.print(f"{pages / folders[-1].name / 'report.html'}", soft_wrap=True)


def _write_card(chosen: argparse.Namespace, console: Console) -> None:
    path = chosen.out.parent / "README.md"
    card.write(record.read(chosen.work / MEASURES), path)
    console.print(str(path), soft_wrap=True)


def _rows(work: Path, part: Part) -> Path:
    return work / f"{part}.jsonl"


def _encoded(work: Path, part: Part) -> Encoded:
    rows = data.load(_rows(work, part))
    return tokens.encode(tokenizer.load(work), rows)


def _silence_the_exporter() -> None:
    """It warns of operators that this graph does not have, of names of dimensions, and of PyTorch's own calls."""
    for name in ("torch.onnx", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
    warnings.filterwarnings("ignore", category=UserWarning, module="torch.onnx")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, FloatingPointError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
