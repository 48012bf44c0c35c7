"""TensorFlow's own environment: a venv that the first export makes and later ones use. `python -m` with the folder of
environments makes it beforehand."""

import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from millrace.exporting import children, room

REQUIREMENTS = Path(__file__).with_name("tensorflow.txt")
COMPLETE = ".complete"
BYTES = 3 << 30
"""Of disk."""


def folder(environments: Path) -> Path:
    """Where the environment of these requirements and this Python lies, or will."""
    told = REQUIREMENTS.read_text() + sys.version
    return environments / f"tensorflow-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def is_complete(environments: Path) -> bool:
    return (folder(environments) / COMPLETE).is_file()


def python(environments: Path, hear: Callable[[str], None]) -> Path:
    """Its Python, once all is installed; one that was begun and not ended is made anew. `hear` is told how far it is.
    Raises ValueError where it cannot be made."""
    target = folder(environments)
    environments.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_suffix(".lock")):
        if not (target / COMPLETE).is_file():
            room.check_disk(environments, BYTES)
            _make(target, hear)
            (target / COMPLETE).touch()
    return target / "bin" / "python"


def _make(target: Path, hear: Callable[[str], None]) -> None:
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "-r", str(REQUIREMENTS)]
    for command in ([sys.executable, "-m", "venv", "--clear", str(target)], [str(target / "bin" / "python"), *install]):
        tail = children.Tail(hear)
        if children.run(command, tail):
            raise ValueError(
                f"TensorFlow's environment, {target}, cannot be made: {tail.last}; it takes a package index that pip "
                "reaches, once"
            )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


if __name__ == "__main__":
    print(python(Path(sys.argv[1]), print))
