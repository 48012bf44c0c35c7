"""Make spoken: prepare, train, export, optimise, serve, and write the card."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from examples import command, optimise, record
from examples.publish import graph_of
from examples.serving import evaluated
from examples.speech import card, corpus, evaluate, export, measure, model, serve, train
from examples.speech.corpus import Counts
from examples.speech.features import log_mel
from examples.speech.score import Score
from examples.speech.voices import Part
from examples.training import history as histories
from examples.training import processes, speed
from examples.training.checkpoint import load
from examples.training.history import History
from examples.training.loop import CHECKPOINT
from examples.training.processes import Group
from millrace.exporting.stages import Stages
from millrace.optimizing.order import Method

STEPS, QUICK_STEPS = 1_200, 90
QUICK = Counts(train=240, validation=20, held_out=40)
CALIBRATION = 64
"""Training sounds that scale the activations of the graph of 8 bits, and that the export is checked on."""
METHODS = (Method.INT8, Method.INT8_STATIC, Method.INT8_BLOCK)
QUICK_METHODS = (Method.INT8_STATIC,)
MOST_LOSS = 0.005
"""Of the validation sounds' word error rate."""
NAME, MEASURES = "spoken", "measures.json"

EXAMPLES = """\
  python -m examples.speech                                everything, within 15 minutes on two cores
  python -m examples.speech --quick --work build/try       the whole path, within 2
  python -m examples.speech --only train --resume          go on from the newest checkpoint
  python -m examples.speech --only train --processes 2     in two processes, or on two GPUs
  python -m examples.speech --only export optimise serve card    after the training
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command.parser("speech", __doc__, PARTS, EXAMPLES)
    command.add_folders(parser, "build/spoken", NAME)
    command.add_training(parser, f"{STEPS:,}; {QUICK_STEPS} with --quick")
    chosen = command.completed(parser, parser.parse_args(given), NAME)
    chosen.steps = chosen.steps or (QUICK_STEPS if chosen.quick else STEPS)
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    torch.set_num_threads(chosen.threads)
    command.run(PARTS, chosen)


def _prepare(chosen: argparse.Namespace, console: Console) -> None:
    corpus.prepare(QUICK if chosen.quick else Counts(), chosen.work)
    sounds = corpus.load(Part.TRAIN, chosen.work)
    console.print(f"{len(sounds):,} sounds to train on, {sounds.seconds:,.0f} s")


def _train(chosen: argparse.Namespace, console: Console) -> None:
    sounds, others = (corpus.load(part, chosen.work) for part in (Part.TRAIN, Part.VALIDATION))
    recipe = train.recipe(chosen.steps, bfloat16=speed.has_bfloat16())
    processes.run(train.train, chosen.processes, chosen.threads, sounds, others, recipe, chosen.work, chosen.resume)
    history = History(**load(chosen.work / CHECKPOINT, asdict(recipe))["history"])
    histories.draw(history, {"wer": "word error rate"}, chosen.work / "curve.png")
    task = train.Hearing(sounds, others, recipe, Group(device=speed.device()))
    found = speed.speed(task, recipe, history)
    console.print(f"{history.seconds:.0f} s: {found}")
    record.note(
        chosen.work / MEASURES,
        training={
            "recipe": asdict(recipe),
            "speed": asdict(found) | {"share": found.share},
            "corpus": {"train": len(sounds), "train_s": sounds.seconds},
            "weights": model.parameters(task.network),
            "seconds": history.seconds,
            "curve": history.curve,
            "processes": chosen.processes,
            "threads": chosen.threads,
        },
    )


def _export(chosen: argparse.Namespace, console: Console) -> None:
    network, some = model.load(chosen.work / "weights.pt"), _some_features(chosen.work)
    difference = export.ship(network, some, chosen.work, chosen.out, Stages(console)).parity.absolute
    held_out = corpus.load_held_out(chosen.work / Part.HELD_OUT)
    graph = evaluate.Graph(chosen.out / "model.onnx")
    scores = evaluate.scores(held_out, graph.transcripts(evaluate.heard(held_out)))
    console.print(f"{chosen.out / 'model.onnx'}: {difference:.1e} from PyTorch; WER {_rates(scores)}", soft_wrap=True)
    record.note(chosen.work / MEASURES, difference=difference, offline=measure.of_scores(scores))


def _optimise(chosen: argparse.Namespace, console: Console) -> None:
    """The validation sounds judge, and training sounds scale the activations: the held-out ones take no part."""
    judging = chosen.work / Part.VALIDATION
    corpus.write_data_set(corpus.load(Part.VALIDATION, chosen.work), judging)
    lines = optimise.optimise(
        chosen.out,
        QUICK_METHODS if chosen.quick else METHODS,
        judging,
        console,
        most_loss=MOST_LOSS,
        quick=chosen.quick,
        threads=chosen.threads,
        calibration=chosen.work / export.SAMPLES,
    )
    record.note(chosen.work / MEASURES, candidates=lines)


def _serve(chosen: argparse.Namespace, console: Console) -> None:
    """Raises RuntimeError where the service hears something else than ONNX Runtime in the version's place."""
    held_out, pages = corpus.load_held_out(chosen.work / Part.HELD_OUT), chosen.work / "evaluation"
    folders = [folder for folder in (chosen.out, chosen.out.with_name("2")) if folder.exists()]
    names, models = [folder.name for folder in folders], chosen.out.parents[1]
    results = evaluated(models, chosen.out.parent.name, names, chosen.work / Part.HELD_OUT, pages)
    features, served = evaluate.heard(held_out), []
    for folder in folders:
        alone = evaluate.Graph(graph_of(folder)).transcripts(features)
        through = serve.transcripts(results[folder.name], held_out)
        scores = evaluate.scores(held_out, through)
        serve.same(alone, scores["all"], through, results[folder.name])
        console.print(
            f"version {folder.name} served: WER {_rates(scores)}, each transcript as by ONNX Runtime alone",
            soft_wrap=True,
        )
        served.append({"version": folder.name, "scores": measure.of_scores(scores), "equal": len(alone)})
    record.note(chosen.work / MEASURES, served=served)
    console.print(f"{pages / names[-1] / 'report.html'}", soft_wrap=True)


def _write_card(chosen: argparse.Namespace, console: Console) -> None:
    path = chosen.out.parent / "README.md"
    card.write(record.read(chosen.work / MEASURES), path)
    console.print(str(path), soft_wrap=True)


def _some_features(work: Path) -> list[evaluate.Features]:
    sounds, front_end = corpus.load(Part.TRAIN, work), log_mel()
    return [front_end(sounds.sound(index)) for index in range(min(CALIBRATION, len(sounds)))]


def _rates(scores: dict[str, Score]) -> str:
    return ", ".join(f"{name} {score.wer:.2%}" for name, score in scores.items())


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
