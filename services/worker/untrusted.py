"""The files of a model's folder, whoever wrote them: listed without leaving the folder, read within bounds.

What ends a reading is a ValueError with a sentence for whoever maintains the repository.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

CONFIG_BYTES = 1 << 20
"""Of a JSON file that says how a model is built."""
YAML_BYTES = 64 << 10
SENTENCE_CHARACTERS = 1_000
TOO_DEEP = "is nested too deeply"


def names(folder: Path) -> list[str]:
    """All files below, relative, sorted, as `files` lists them."""
    return list(files(folder))


def files(folder: Path) -> dict[str, os.stat_result]:
    """All files below, by relative name, sorted. Only plain files and folders may lie there: a link, be it symbolic or
    hard, could show somebody else's file, and a pipe would be waited for."""
    found: dict[str, os.stat_result] = {}
    waiting = [folder.parent, folder]
    for path in waiting:
        if path.is_symlink():
            raise ValueError(f"{path.name} is a symbolic link")
    del waiting[0]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if _is_folder(entry):
                    waiting.append(Path(entry.path))
                else:
                    name = Path(entry.path).relative_to(folder).as_posix()
                    found[name] = entry.stat(follow_symlinks=False)
    return dict(sorted(found.items()))


def plain_file(path: Path) -> bool:
    """Whether there is something of this name. Raises ValueError where it is no plain file."""
    with os.scandir(path.parent) as entries:
        entry = next((entry for entry in entries if entry.name == path.name), None)
    if entry is not None and _is_folder(entry):
        raise ValueError(f"{path.name} is a folder")
    return entry is not None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise ValueError(f"{entry.name} is a symbolic link")
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise ValueError(f"{entry.name} is a hard link: the file has a second name, which may lie anywhere")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{entry.name} is neither a file nor a folder")
    return stat.S_ISDIR(status.st_mode)


class _PlainLoader(yaml.SafeLoader):
    """Plain data, and no aliases: a few of them stand for any amount of it."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, which is not taken")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    text = _read(path, YAML_BYTES)
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {error}") from None
    except RecursionError:
        raise ValueError(f"{path.name} {TOO_DEEP}") from None
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"{path.name}: {error}") from None


def read_json(path: Path, most: int = CONFIG_BYTES) -> Any:
    """`most`: bytes that the file may have, as in `read_text`."""
    text = _read(path, most)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{path.name} {TOO_DEEP}") from None
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from None


def read_text(path: Path, most: int) -> str:
    try:
        return _read(path, most).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not UTF-8") from None


def read_lines(path: Path, most: int) -> list[str]:
    return read_text(path, most).removesuffix("\n").split("\n")


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path.name} has more than {most} bytes")
    return content


def sentence(error: BaseException) -> str:
    """What an error says, fit for a log line and the registry."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return printable(text[:SENTENCE_CHARACTERS])


def printable(text: str) -> str:
    """File names may hold bytes that are no UTF-8, which Python keeps as lone surrogates."""
    return text.encode(errors="backslashreplace").decode()
