"""A model's folder that appears whole or not at all, with the sums of its files."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

MANIFEST = "SHA256SUMS"


@contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """An empty folder to write to. At the end it takes the place of `folder`; where an error ends the block, `folder`
    stays as it was. Names with a dot before them are none of a repository's versions."""
    unfinished, before = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    if before.exists() and not folder.exists():
        before.rename(folder)  # a process died between the two renamings below
    for left in (unfinished, before):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _write_manifest(unfinished)
        _sync(unfinished)
        if folder.exists():
            folder.rename(before)
        unfinished.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)


def graph_of(folder: Path) -> Path:
    """The graph that a CPU runs, of a version's folder."""
    described = yaml.safe_load((folder / "model.yaml").read_text())
    return folder / str(described["graphs"]["cpu"]["path"])


def _write_manifest(folder: Path) -> None:
    """As sha256sum writes it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / MANIFEST).write_text("".join(lines))


def _sync(folder: Path) -> None:
    """The files, and the folder's list of them, to the disk."""
    for path in (*folder.iterdir(), folder):
        entry = os.open(path, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)
