"""Make origin: prepare, train, export, optimise, serve, and write the card."""

import argparse
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from examples import command, optimise, record
from examples.publish import graph_of
from examples.serving import evaluated
from examples.text import serve, tokenizer
from examples.text.classifier import card, data, evaluate, export, model, tokens, train
from examples.text.classifier.data import Part
from examples.text.classifier.evaluate import Graph
from examples.text.classifier.tokens import Encoded
from examples.training import history as histories
from examples.training import processes, speed
from examples.training.checkpoint import load
from examples.training.history import History
from examples.training.loop import CHECKPOINT
from examples.training.processes import Group
from millrace.exporting.stages import Stages

STEPS, QUICK_STEPS = 600, 60
MOST_LOSS = 0.01
"""Of the validation snippets' accuracy."""
NAME, MEASURES = "origin", "measures.json"
QUICK_EVERY = 4
"""Of the validation and the held-out snippets one in so many is asked."""
RESAMPLES, QUICK_RESAMPLES = 1_000, 100

EXAMPLES = """\
  python -m examples.text.classifier                           everything, a few minutes on two cores
  python -m examples.text.classifier --quick --work build/try  the whole path
  python -m examples.text.classifier --only train --resume     go on from the newest checkpoint
  python -m examples.text.classifier --only train --processes 2    in two processes, or on two GPUs
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command.parser("text.classifier", __doc__, PARTS, EXAMPLES)
    command.add_folders(parser, "build/text/classifier", NAME)
    command.add_training(parser, f"{STEPS:,}; {QUICK_STEPS} with --quick")
    chosen = command.completed(parser, parser.parse_args(given), NAME)
    chosen.steps = chosen.steps or (QUICK_STEPS if chosen.quick else STEPS)
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    torch.set_num_threads(chosen.threads)
    command.run(PARTS, chosen, "classifier: ")


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
    plan = train.recipe(chosen.steps, bfloat16=speed.has_bfloat16())
    snippets, validation = (_encoded(chosen.work, part) for part in (Part.TRAIN, Part.VALIDATION))
    given = (snippets, validation, plan, chosen.work, chosen.resume)
    processes.run(train.train, chosen.processes, chosen.threads, *given)
    history = History(**load(chosen.work / CHECKPOINT, asdict(plan))["history"])
    histories.draw(history, {"accuracy": "validation accuracy"}, chosen.work / "curve.png")
    task = train.Naming(snippets, validation, plan, Group(device=speed.device()))
    found = speed.speed(task, plan, history)
    console.print(f"{history.seconds:.0f} s: {found}")
    record.note(
        chosen.work / MEASURES,
        recipe=asdict(plan),
        curve=history.curve,
        speed=asdict(found) | {"share": found.share},
        weights=model.parameters(task.network),
        run={"seconds": history.seconds, "processes": chosen.processes, "threads": chosen.threads},
    )


def _export(chosen: argparse.Namespace, console: Console) -> None:
    known, held_out = (_encoded(chosen.work, part) for part in (Part.TRAIN, Part.HELD_OUT))
    network, words = model.load(chosen.work / "weights.pt"), chosen.work / "tokenizer.json"
    difference = export.ship(network, words, known, chosen.work, chosen.out, Stages(console)).parity.absolute
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
        optimise.OF_TEXTS,
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
        result = results[folder.name].result
        alone = evaluate.score(Graph(graph_of(folder)).labels(held_out), held_out.labels)
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


PARTS: dict[str, command.Part] = {
    "prepare": _prepare,
    "train": _train,
    "export": _export,
    "optimise": _optimise,
    "serve": _serve,
    "card": _write_card,
}

if __name__ == "__main__":
    command.end(main)
