"""Where `millrace load` leaves what it found."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

FOLDER = Path("build/load")
Write = Callable[[Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What is shown and left behind."""

    out: Path | None
    """A folder, or a .json file beside which the report goes."""
    report: bool
    live: bool

    @contextmanager
    def files(self, name: str, stem: str) -> Iterator["Files"]:
        """Files in a folder that is made now, and removed afterwards if nothing was written. Raises OSError."""
        if self.out is not None and self.out.suffix == ".json":
            files = Files(numbers=self.out, page=self.out.with_suffix(".html") if self.report else None)
        else:
            slug = re.sub(r"[^\w.-]+", "-", name)
            folder = self.out or FOLDER / f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}"
            files = Files(numbers=folder / f"{stem}.json", page=folder / "report.html" if self.report else None)
        folder, is_new = files.numbers.parent, not files.numbers.parent.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield files
        finally:
            if is_new and not any(folder.iterdir()):
                folder.rmdir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Of one run."""

    numbers: Path
    page: Path | None

    def write(self, numbers: Write, page: Write) -> None:
        """Prints each path once it is there."""
        console = Console(highlight=False)
        for path, write in ((self.numbers, numbers), (self.page, page)):
            if path is not None:
                write(path)
                console.print(str(path), markup=False, soft_wrap=True)
