"""How far an export is, told to whoever waits for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Stages:
    """Stages one after the other. On a terminal the running one is a line that moves, and each leaves a line when it is
    done; elsewhere there is only that."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        words = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), words, BarColumn(bar_width=24), TimeElapsedColumn())
        moves = console.is_terminal and not quiet
        self._progress = Progress(*columns, console=console, transient=True, disable=not moves)
        self._task: TaskID | None = None

    @contextmanager
    def stage(self, title: str, total: float | None = None) -> Iterator[None]:
        """`total`: how many times, or how much, `advance` will be told; None: nobody knows."""
        began = time.monotonic()
        with self._progress:
            self._task = self._progress.add_task(title, total=total)
            try:
                yield
            finally:
                self._progress.remove_task(self._task)
                self._task = None
        if not self._quiet:
            self._console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - began:.1f} s[/]", highlight=False)

    def advance(self, by: float = 1) -> None:
        """The running stage is so much further."""
        if self._task is not None:
            self._progress.advance(self._task, by)

    def say(self, words: str) -> None:
        """What the running stage does at the moment."""
        if self._task is not None:
            self._progress.update(self._task, description=words[:100])
