"""What the exporter itself writes into a version's folder: model.yaml, labels, the card, and files that are given."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from millrace.exporting import card, graphs
from millrace.exporting.built import Built
from millrace.exporting.manifest import MANIFEST_FILE
from millrace.exporting.order import Order

MODEL_FILE = "model.yaml"
CARD_FILE = "README.md"
LABELS_FILE = "labels.txt"
FIXED = frozenset({"name", "task", "engine", "graphs"})


def describe(order: Order, built: Built) -> dict[str, Any]:
    """The content of model.yaml. Raises ValueError where the order's keys say otherwise than its options."""
    if wrong := sorted(FIXED & order.keys.keys()):
        raise ValueError(f"--keys: {', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} the exporter's own business")
    entry = {"path": built.graph, "precision": order.precision.value}
    found: dict[str, Any] = {
        "name": order.name,
        "task": order.task or built.task,
        "engine": built.engine,
        "graphs": {device: dict(entry) for device in built.devices},
    }
    return found | dict(built.keys) | dict(order.keys)


def write(folder: Path, order: Order, built: Built) -> None:
    """model.yaml and the card."""
    described = describe(order, built)
    (folder / MODEL_FILE).write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
    (folder / CARD_FILE).write_text(card.text(folder, order, built, described))


def include(folder: Path, files: Sequence[Path]) -> None:
    """Copies files that are given. Raises ValueError where one has the name of a file that the exporter writes."""
    for path in files:
        if path.name in (MODEL_FILE, CARD_FILE, MANIFEST_FILE) or (folder / path.name).exists():
            raise ValueError(f"--include {path}: {path.name} is written by the exporter itself")
        shutil.copyfile(path, folder / path.name)


def write_labels(folder: Path, names: Sequence[str], output: str) -> dict[str, Any]:
    """Writes the names of an output's values; answers the key of model.yaml. Raises ValueError where one is no line."""
    if wrong := [name for name in names if "\n" in name or "\r" in name]:
        raise ValueError(f"the label {wrong[0]!r} is more than one line")
    (folder / LABELS_FILE).write_text("".join(f"{name}\n" for name in names))
    return {"labels": {output: LABELS_FILE}}


def given_labels(order: Order, folder: Path) -> dict[str, Any]:
    """Those of `--labels`, for the graph's first output of floats [rows, labels] or [rows, frames, labels]. Raises
    ValueError where there is none."""
    if order.labels is None:
        return {}
    output = graphs.first_floats(graphs.outputs(graphs.session(folder / graphs.GRAPH_FILE)), (2, 3))
    if output is None:
        raise ValueError("--labels: the graph has no output of floats [rows, labels] or [rows, frames, labels]")
    names = read_labels(order.labels)
    if isinstance(output.dims[-1], int) and output.dims[-1] != len(names):
        raise ValueError(f"--labels: {output.name} has {output.dims[-1]} values, and {len(names)} are named")
    return write_labels(folder, names, output.name)


def read_labels(path: Path) -> list[str]:
    """Raises ValueError where the file is no text."""
    try:
        return path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--labels {path.name}: not a text file: {error}") from None


def read_keys(path: Path) -> Mapping[str, Any]:
    """A file of further keys of model.yaml. Raises ValueError where it is no mapping."""
    try:
        read = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--keys {path}: {error}") from None
    if not isinstance(read, dict):
        raise ValueError(f"--keys {path}: holds no keys of model.yaml")
    return read
