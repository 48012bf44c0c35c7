"""Make pycode: prepare, train, export, measure, optimise, serve, write the card; and then origin, the classifier."""

import argparse
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path

import torch
from rich.console import Console

from examples import command, optimise, record
from examples.text import card, export, measure, model, prepare, serve, shipped, train
from examples.text.classifier import __main__ as classifier
from examples.text.export import Storage
from examples.text.prepare import JUDGING, SERVED
from examples.training import history as histories
from examples.training import processes, speed
from examples.training.checkpoint import load
from examples.training.history import History
from examples.training.loop import CHECKPOINT
from examples.training.processes import Group

STEPS, QUICK_STEPS = 1_800, 60
QUICK_FILES, QUICK_PASSAGES = 12, 8
"""One file in so many, and so many passages."""
MOST_LOSS, QUICK_LOSS = 0.01, 0.1
"""Of the perplexity, as a share."""
NAME, MEASURES = "pycode", "measures.json"


class Recipe(StrEnum):
    """What is trained: a model that fits into a quarter of an hour, or again the one in the repository."""

    STORY = "story"
    SHIPPED = "shipped"


EXAMPLES = """\
  python -m examples.text                                  everything, within 15 minutes on two cores
  python -m examples.text --quick --work build/try         the whole path, within 2
  python -m examples.text --only train --resume            go on from the newest checkpoint
  python -m examples.text --only train --processes 2       in two processes, or on two GPUs
  python -m examples.text --only export measure optimise serve card    after the training
  python -m examples.text --recipe shipped                 the recipe of models/pycode: about an hour
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command.parser("text", __doc__, PARTS, EXAMPLES)
    command.add_folders(parser, None, NAME)
    command.add_training(parser, f"{STEPS:,}; {QUICK_STEPS} with --quick")
    told = "what is trained; shipped is models/pycode once more (%(default)s)"
    parser.add_argument("--recipe", type=Recipe, choices=list(Recipe), default=Recipe.STORY, help=told)
    parser.add_argument("--storage", type=Storage, choices=list(Storage), help="of the shipped weights (fp32, fp16)")
    return _completed(parser, parser.parse_args(given))


def _completed(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> argparse.Namespace:
    again = chosen.recipe is Recipe.SHIPPED
    if again and (chosen.quick or chosen.processes > 1):
        parser.error("--recipe shipped: it has neither --quick nor --processes")
    chosen.work = chosen.work or Path("build") / ("pycode" if again else "text")
    command.completed(parser, chosen, NAME)
    chosen.storage = chosen.storage or (Storage.FP16 if again else Storage.FP32)
    chosen.steps = chosen.steps or (shipped.Recipe().steps if again else QUICK_STEPS if chosen.quick else STEPS)
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    """Run the chosen parts in their order."""
    chosen = arguments(given)
    torch.set_num_threads(chosen.threads)
    command.run(PARTS, chosen)


def _prepare(chosen: argparse.Namespace, console: Console) -> None:
    wanted = {"one_in": QUICK_FILES, "passages": QUICK_PASSAGES} if chosen.quick else {}
    console.print(prepare.prepare(chosen.work, **wanted).counts)


def _train(chosen: argparse.Namespace, console: Console) -> None:
    (_train_shipped if chosen.recipe is Recipe.SHIPPED else _train_story)(chosen, console)


def _train_story(chosen: argparse.Namespace, console: Console) -> None:
    prepared, shape = prepare.load(chosen.work), train.QUICK if chosen.quick else train.Shape()
    plan = train.recipe(chosen.steps, bfloat16=speed.has_bfloat16())
    given = (prepared.train, prepared.held_out, shape, plan, chosen.work, chosen.resume)
    processes.run(train.train, chosen.processes, chosen.threads, *given)
    model.save(train.load(chosen.work / "weights.pt", shape), prepared.tokenizer, chosen.work / "weights")
    history = History(**load(chosen.work / CHECKPOINT, asdict(plan))["history"])
    histories.draw(history, {"perplexity": "perplexity of held-out windows"}, chosen.work / "curve.png")
    task = train.Continuing(*given[:4], Group(device=speed.device()))
    found = speed.speed(task, plan, history)
    epochs = history.amount / prepared.counts["train_tokens"]
    told = (
        f"{history.steps:,} steps of {history.amount / history.steps:,.0f} tokens ({epochs:.1f} epochs), "
        f"{history.seconds:.0f} s; processes: {chosen.processes}, threads: {chosen.threads}; {found}. "
        f"AdamW, rate {plan.peak_rate}, {plan.warmup_steps} steps of warm-up and a cosine; weight decay "
        f"{plan.weight_decay}, gradient norm at most {plan.clip_norm}, {plan.precision}"
    )
    console.print(told)
    called = "python -m examples.text" + " --quick" * chosen.quick
    record.note(chosen.work / MEASURES, training=told, command=called, speed=asdict(found) | {"share": found.share})


def _train_shipped(chosen: argparse.Namespace, console: Console) -> None:
    prepared, plan = prepare.load(chosen.work), replace(shipped.Recipe(), steps=chosen.steps)
    trained, history = shipped.train(prepared.train, prepared.held_out, plan, chosen.work, resume=chosen.resume)
    model.save(trained, prepared.tokenizer, chosen.work / "weights")
    epochs = history.tokens / prepared.counts["train_tokens"]
    told = (
        f"{history.steps:,} steps of {plan.step_tokens:,} tokens ({epochs:.1f} epochs), {history.seconds / 60:.0f} "
        f"minutes on {chosen.threads} CPU cores, {history.tokens / history.seconds:,.0f} tokens/s; planned steps: "
        + "; ".join(f"{length:,} from step {first:,} on" for first, length in history.plans)
    )
    console.print(told)
    record.note(chosen.work / MEASURES, training=told, command="python -m examples.text --recipe shipped")


def _storages(chosen: argparse.Namespace) -> list[Storage]:
    """Those that are built and measured: fp32, which is held against PyTorch, is always one."""
    every = chosen.recipe is Recipe.SHIPPED
    return [storage for storage in Storage if every or storage in (Storage.FP32, chosen.storage)]


def _export(chosen: argparse.Namespace, console: Console) -> None:
    for storage in _storages(chosen):
        graph = chosen.work / "graphs" / storage
        export.build(chosen.work / "weights", storage, graph)
        console.print(f"{storage}: {export.size_bytes(graph):,} bytes")
    export.ship(chosen.work / "graphs" / chosen.storage, chosen.storage, chosen.out)


def _measure(chosen: argparse.Namespace, console: Console) -> None:
    prepared = prepare.load(chosen.work)
    quality = measure.measure(prepared, chosen.work, _storages(chosen), chosen.threads)
    for name, found in ({"trigram": quality["trigram"]} | quality["graphs"]).items():
        console.print(f"{name}: perplexity {found['perplexity']:.3f}, {found['bits_per_byte']:.4f} bits per byte")
    found = {"storage": chosen.storage.value, "python": platform.python_version(), "corpus": prepared.counts}
    record.note(chosen.work / MEASURES, quality=quality, **found)


def _optimise(chosen: argparse.Namespace, console: Console) -> None:
    lines = optimise.optimise(
        chosen.out,
        optimise.OF_TEXTS,
        chosen.work / JUDGING,
        console,
        most_loss=QUICK_LOSS if chosen.quick else MOST_LOSS,
        quick=chosen.quick,
        threads=chosen.threads,
    )
    record.note(chosen.work / MEASURES, candidates=lines)


def _serve(chosen: argparse.Namespace, console: Console) -> None:
    """Raises RuntimeError where the service's figures are not those of the graph alone."""
    words, data = prepare.load(chosen.work).tokenizer, chosen.work / SERVED
    pages = chosen.work / "evaluation"
    served = serve.decoder(chosen.out, data, words, prepare.texts(data), pages, chosen.threads)
    for one in served:
        for how in ("alone", "served"):
            found = f"perplexity {one[how]['perplexity']:.5f}, {one[how]['bits_per_byte']:.6f} bits per byte"
            console.print(f"version {one['version']} {how}: {found}")
    record.note(chosen.work / MEASURES, served=served)
    console.print(f"{pages / '1' / 'report.html'}", soft_wrap=True)


def _write_card(chosen: argparse.Namespace, console: Console) -> None:
    path = chosen.out.parent / "README.md"
    card.write(chosen.out, record.read(chosen.work / MEASURES), path)
    console.print(str(path), soft_wrap=True)


def _classifier(chosen: argparse.Namespace, console: Console) -> None:
    """The other model of this folder, in a work folder below; its training goes on where it has begun."""
    work = chosen.work / "classifier"
    given = ["--work", str(work), "--out", str(chosen.out.parents[1] / "origin" / "1")]
    given += ["--threads", str(chosen.threads), "--processes", str(chosen.processes)]
    given += ["--quick"] * chosen.quick + ["--resume"] * (chosen.resume and (work / CHECKPOINT).exists())
    classifier.main(given)


PARTS: dict[str, command.Part] = {
    "prepare": _prepare,
    "train": _train,
    "export": _export,
    "measure": _measure,
    "optimise": _optimise,
    "serve": _serve,
    "card": _write_card,
    "classifier": _classifier,
}

if __name__ == "__main__":
    command.end(main)
