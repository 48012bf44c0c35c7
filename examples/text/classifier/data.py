"""Functions of the standard library, labelled by the package that they come from, and split by file.

Cleaned: the packages' own names are masked, since they would be the answer; short functions, and all but the first of
those that are alike but for spaces, are left out. No file is in two parts.
"""

import ast
import hashlib
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from examples.text import data
from examples.text.data import Document

LABELS = ("asyncio", "email", "idlelib", "importlib", "multiprocessing", "tkinter", "unittest", "xml")
MASK = "package"
LEAST_LINES = 4
NAMES = re.compile(rf"\b({'|'.join(LABELS)})\b", re.IGNORECASE)


class Part(StrEnum):
    """What snippets are for, in the order in which the first of those that are alike is kept."""

    TRAIN = "train"
    VALIDATION = "validation"
    HELD_OUT = "held_out"


SHARES = {Part.HELD_OUT: 0.2, Part.VALIDATION: 0.1}
"""Of a package's snippets, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A function's source, and the package that its file is in."""

    path: str
    label: str
    text: str


Snippets = Mapping[Part, Sequence[Snippet]]


def read(root: Path | None = None) -> Snippets:
    """Of the library below `root` (the running interpreter's when None). Raises FileNotFoundError where a package of
    LABELS has too few files to be split."""
    found: dict[str, list[Snippet]] = {}
    for document in data.read_documents(root or data.standard_library()):
        label = document.path.split("/")[0]
        if label in LABELS:
            found[document.path] = list(functions(document, label))
    parts: dict[Part, list[Snippet]] = {part: [] for part in Part}
    for label in LABELS:
        counts = {path: len(snippets) for path, snippets in found.items() if path.startswith(f"{label}/")}
        for path, part in split(counts).items():
            parts[part] += found[path]
        if missing := [part.value for part in Part if not any(one.label == label for one in parts[part])]:
            raise FileNotFoundError(f"the standard library has too little of {label} for {', '.join(missing)}")
    return distinct(parts)


def split(counts: Mapping[str, int]) -> dict[str, Part]:
    """The part of each of a package's files, of so many snippets: in an order by a hash of their paths each goes to the
    emptier of the held-out and the validation part where that has room for it; the others are trained on."""
    total, filled = sum(counts.values()), dict.fromkeys(SHARES, 0)
    found = {}
    for path in sorted(counts, key=lambda path: hashlib.sha256(path.encode()).digest()):
        part = min(SHARES, key=lambda part: filled[part] / SHARES[part])
        if filled[part] + counts[path] > SHARES[part] * total:
            found[path] = Part.TRAIN
        else:
            found[path] = part
            filled[part] += counts[path]
    return found


def functions(document: Document, label: str) -> Iterator[Snippet]:
    """Functions and methods, decorators included; those inside others are theirs."""
    lines = document.text.splitlines()
    for node in _outermost(ast.parse(document.text)):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        assert node.end_lineno is not None
        if node.end_lineno - first + 1 >= LEAST_LINES:
            text = textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))
            yield Snippet(path=document.path, label=label, text=NAMES.sub(MASK, text))


def distinct(parts: Mapping[Part, Sequence[Snippet]]) -> Snippets:
    """The first of those that are alike, in the parts' order: nothing that is trained on is asked for later."""
    seen: set[str] = set()
    kept: dict[Part, list[Snippet]] = {part: [] for part in Part}
    for part in Part:
        for snippet in parts[part]:
            key = "".join(snippet.text.split())
            if key not in seen:
                seen.add(key)
                kept[part].append(snippet)
    return kept


def write(snippets: Sequence[Snippet], path: Path) -> None:
    """As JSON lines that `millrace evaluate` and `millrace optimize` take."""
    rows = ({"id": str(index), "text": one.text, "label": one.label} for index, one in enumerate(snippets))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def load(path: Path) -> list[tuple[str, str]]:
    """Text and label of each line that `write` wrote. Raises FileNotFoundError where there is no such file."""
    if not path.exists():
        raise FileNotFoundError(f"nothing is prepared: {path} does not exist")
    rows = map(json.loads, path.read_text().splitlines())
    return [(row["text"], row["label"]) for row in rows]


def _outermost(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        else:
            yield from _outermost(child)
