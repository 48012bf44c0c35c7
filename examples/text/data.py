"""The corpus: the source of the running interpreter's standard library, split by file.

A file is held out when a hash of its relative path says so: the split depends on nothing else, and no file is in both
halves.
"""

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

EXCLUDED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib-dynload", "_bundled"}
)
EXCLUDED_PREFIXES = ("pydoc_data/topics", "html/entities", "re/_casefix", "_sysconfigdata", "config-")
KEPT_ENCODINGS = frozenset({"__init__", "aliases", "idna", "punycode", "utf_8", "utf_8_sig", "utf_16", "utf_32"})
HELD_OUT_OF = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One source file: its path below the library's root, with forward slashes, and its text with `\\n` line ends."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Both halves, each sorted by path."""

    train: tuple[Document, ...]
    held_out: tuple[Document, ...]


def standard_library() -> Path:
    """The folder that holds the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def is_source(path: str) -> bool:
    """Whether people wrote the file at this relative path: no tests, no generated tables, no installed packages."""
    parts = PurePosixPath(path)
    if parts.suffix != ".py" or EXCLUDED_FOLDERS.intersection(parts.parts[:-1]) or path.startswith(EXCLUDED_PREFIXES):
        return False
    return parts.parts[0] != "encodings" or parts.stem in KEPT_ENCODINGS


def is_held_out(path: str) -> bool:
    """Whether the file is kept for validation: about one path in `HELD_OUT_OF`, chosen by its SHA-256."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") % HELD_OUT_OF == 0


def source_paths(root: Path) -> list[str]:
    """The relative paths of the corpus's files, sorted."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    return sorted(path for path in found if is_source(path))


def read_documents(root: Path) -> Iterator[Document]:
    """The files that decode as UTF-8 and are not empty."""
    for path in source_paths(root):
        try:
            text = (root / path).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield Document(path=path, text=text.replace("\r\n", "\n"))


def read_corpus(root: Path | None = None) -> Corpus:
    """Read the library below `root` (the running interpreter's when None). Raises FileNotFoundError without one."""
    documents = tuple(read_documents(root or standard_library()))
    if not documents:
        raise FileNotFoundError(f"no Python source below {root or standard_library()}")
    return Corpus(
        train=tuple(document for document in documents if not is_held_out(document.path)),
        held_out=tuple(document for document in documents if is_held_out(document.path)),
    )


def fewer(corpus: Corpus, one_in: int) -> Corpus:
    """One file in so many of either half, the first of each at least."""
    return Corpus(train=corpus.train[::one_in], held_out=corpus.held_out[::one_in])


def size_bytes(documents: Iterable[Document]) -> int:
    """The size of the documents' text in UTF-8."""
    return sum(len(document.text.encode()) for document in documents)
