"""A new version's folder: the original's files, with the best candidate's graph in place of one of them.

Graphs of other devices stay as they are, since nothing of them was measured.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from millrace.exporting.manifest import MANIFEST_FILE
from millrace.optimizing import graphs, report
from millrace.optimizing.candidate import Candidate, Choice
from millrace.optimizing.methods import PRECISIONS
from millrace.optimizing.order import Order
from millrace.optimizing.version import CONFIG_FILE, MODEL_FILE, Version

CARD_FILE = "README.md"


def fill(folder: Path, order: Order, version: Version, candidates: Sequence[Candidate], choice: Choice) -> None:
    """Writes all files but the sums. Raises ValueError as `place` does."""
    assert choice.best is not None, "there is something to publish"
    place(folder, version, choice.best)
    _write_card(folder / CARD_FILE, order, version, candidates, choice)


def place(folder: Path, version: Version, one: Candidate) -> None:
    """Writes what a worker needs of the version with this candidate's graph. Raises ValueError where one of the
    original's files is a link, or stands in the way."""
    _copy(version, folder)
    target = folder / version.graph.parent.relative_to(version.folder)
    target.mkdir(parents=True, exist_ok=True)
    for file in graphs.files(one.graph):
        if (target / file.name).exists():
            raise ValueError(f"another device's graph needs {file.name}: give each device files of its own")
        shutil.copyfile(file, target / file.name)
    described = _describe(version, one, target.relative_to(folder))
    (folder / MODEL_FILE).write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=1 << 10))


def size(version: Version) -> int:
    """Bytes of all that a version has."""
    return sum(path.stat().st_size for path in version.folder.rglob("*") if path.is_file())


def _copy(version: Version, folder: Path) -> None:
    """All but the replaced graph, model.yaml and the sums."""
    left_out = {version.folder / MODEL_FILE, version.folder / MANIFEST_FILE} | _replaced(version)
    for path in sorted(version.folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path.name} is a link: no worker serves such a version")
        if path.is_file() and path not in left_out:
            copy = folder / path.relative_to(version.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _replaced(version: Version) -> set[Path]:
    """The files of the device's graph that no other device's needs."""
    others = [path for path in version.others() if path.exists()]
    kept = {file for path in others for graph in _graphs(path) for file in graphs.files(graph)}
    return set(graphs.files(version.graph)) - kept


def _graphs(path: Path) -> list[Path]:
    """What an entry of `graphs` names: a graph, or a folder that holds some."""
    return [path] if path.is_file() else sorted(path.glob("*.onnx"))


def _describe(version: Version, one: Candidate, place: Path) -> dict[str, Any]:
    described = dict(version.described)
    entry = {"path": (place if version.decoder else place / one.graph.name).as_posix()}
    assert one.method is not None, "the original is copied as it is"
    entry["precision"] = PRECISIONS.get(one.method, version.precision)
    described["graphs"] = dict(described["graphs"]) | {version.device: entry}
    if one.method in PRECISIONS:
        described.pop("weights", None)
    return described


def _write_card(card: Path, order: Order, version: Version, candidates: Sequence[Candidate], choice: Choice) -> None:
    """Adds a section to the original's."""
    assert choice.best is not None
    before = card.read_text().rstrip() if card.exists() else f"# {version.name}"
    judged = "the metric" if order.data is not None else "the largest difference of an output on random inputs"
    lines = [
        f"## Optimised from version {version.folder.name}: {choice.best.name}",
        "",
        f"The best in {order.prefer.value} among those that lose at most {order.max_loss:.2%} of {judged}. Medians of "
        f"{order.rounds} rounds on one machine's {version.device.upper()}; ±: half of what lies between the extremes.",
        "",
        *report.markdown(candidates, choice),
    ]
    card.write_text("\n".join([before, "", *lines, ""]))


def check(version: Version) -> None:
    """Raises ValueError where one device's graph cannot be replaced alone."""
    folder = version.graph.parent
    if version.decoder is not None and folder in version.others():
        raise ValueError(f"{MODEL_FILE}: two devices share {CONFIG_FILE}: give each a folder of its own")
