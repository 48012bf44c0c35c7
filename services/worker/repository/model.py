"""What the repository answers: the versions of models that are in order, and those that are not."""

from dataclasses import dataclass
from pathlib import Path

from services.worker.repository.model_file import ModelFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One version of a model whose files are in order."""

    folder: Path
    version: str
    file: ModelFile
    digest: str
    """Hex SHA-256 over the names, sizes and SHA-256 sums of all files of the version."""
    stamp: str = ""
    """Changes with what the file system says of the version's files, before they are read."""
    chosen: bool = True
    """Whether the model's version policy has it served."""

    @property
    def name(self) -> str:
        return self.file.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A version that cannot be served, and why."""

    path: Path
    reason: str
    stamp: str = ""
    """As in `Model`; empty where the files could not even be listed."""
