"""A labelled data set, whichever form it has."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from millrace.evaluating.data.archive import read_archive
from millrace.evaluating.data.example import Example
from millrace.evaluating.data.media import Folder
from millrace.evaluating.data.records import to_example
from millrace.evaluating.data.rows import FORMATS, rows
from millrace.evaluating.kinds import BY_TASK, Kind

ARCHIVE, LISTING = ".npz", "labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    name: str
    """The file's, without its folder."""
    kind: Kind
    sha256: str
    """Of the file, and of the images and sounds that it names."""
    examples: Sequence[Example]


def read_dataset(path: Path, *, kind: Kind | None, model_task: str, limit: int | None = None) -> Dataset:
    """The first `limit` examples; of embeddings, whose documents belong together, all.

    Raises ValueError, with the line, for data that cannot be evaluated, OSError for what cannot be read.
    """
    listing = _listing(path)
    with listing.open("rb") as opened:
        whole = hashlib.file_digest(opened, "sha256")
    if listing.suffix.lower() == ARCHIVE:
        if kind not in (None, "infer"):
            raise ValueError(f"{listing.name} holds tensors, which are evaluated by `infer`, not by {kind}")
        examples, kind = read_archive(listing), "infer"
    else:
        kind = kind or guess(listing, model_task)
        examples, media = _read(listing, kind)
        whole.update(media)
    if not examples:
        raise ValueError(f"{listing.name} has no examples")
    if kind == "embed":
        _check_retrieval(listing.name, examples)
        limit = None
    return Dataset(name=path.name, kind=kind, sha256=whole.hexdigest(), examples=examples[:limit])


def guess(listing: Path, model_task: str) -> Kind:
    """From the model's task and the first record."""
    _, first = next(islice(rows(listing), 1), (0, dict[str, Any]()))
    if "inputs" in first:
        return "infer"
    if model_task == "text-generation":
        return "generate" if "prompt" in first else "perplexity"
    if model_task not in BY_TASK:
        raise ValueError(f"how a model of {model_task!r} is evaluated is not known: --task says it")
    return BY_TASK[model_task]


def _listing(path: Path) -> Path:
    """The file itself; of a folder the one that names its files."""
    if path.is_dir():
        found = [path / f"{LISTING}{suffix}" for suffix in FORMATS if (path / f"{LISTING}{suffix}").is_file()]
        if not found:
            raise ValueError(f"{path.name} is a folder without {LISTING}.csv, whose lines are `file,label`")
        return found[0]
    if path.suffix.lower() not in (*FORMATS, ARCHIVE):
        raise ValueError(f"{path.name} is none of {', '.join((*FORMATS, ARCHIVE))}, nor a folder with {LISTING}.csv")
    return path


def _read(listing: Path, kind: Kind) -> tuple[list[Example], bytes]:
    """The examples, and a digest of the files that they name."""
    folder, seen, examples = Folder(listing.parent), dict[str, int](), list[Example]()
    for line, row in rows(listing):
        try:
            example = to_example(kind, row, str(line), folder)
            if example.id in seen:
                raise ValueError(f"id: {example.id!r} is that of line {seen[example.id]} too")
        except ValueError as error:
            raise ValueError(f"{listing.name}:{line}: {error}") from None
        seen[example.id] = line
        examples.append(example)
    return examples, folder.sha256.digest()


def _check_retrieval(name: str, examples: Sequence[Example]) -> None:
    documents = {example.id for example in examples if example.relevant is None}
    queries = [example for example in examples if example.relevant is not None]
    if not documents or not queries:
        raise ValueError(f"{name} needs both: lines with id and text, and lines with query and relevant")
    for query in queries:
        if missing := sorted(set(query.relevant or ()) - documents):
            raise ValueError(f"{name}: query {query.id} finds {missing[0]!r} relevant, which is no document's id")
