"""What an evaluation shows while it runs: a bar on a terminal, or a line each few seconds elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jiwer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from millrace.evaluating.asking import Answer, Failure, Journal, Outcome, Target
from millrace.evaluating.asking import Progress as Step
from millrace.evaluating.asking.running import Watch
from millrace.evaluating.data import Dataset, Example
from millrace.evaluating.kinds import Kind
from millrace.evaluating.scores.texts import counts

LINE_S = 10.0


class Course:
    """How far one model's evaluation is, and what its score would be if that were all."""

    def __init__(self, kind: Kind, dataset: Dataset, journal: Journal) -> None:
        self._kind, self.total = kind, len(dataset.examples)
        self.done = self.failed = 0
        self._above = self._below = 0.0
        for example in dataset.examples:
            if not journal.is_due(example.id):
                self.add(example, journal.outcomes[example.id])
        self._known, self._began = self.done, time.monotonic()

    def add(self, example: Example, outcome: Outcome) -> None:
        self.done += 1
        self.failed += isinstance(outcome, Failure)
        if isinstance(outcome, Answer):
            above, below = part(self._kind, example, outcome)
            self._above, self._below = self._above + above, self._below + below

    @property
    def rate(self) -> float:
        """Outcomes a second of this start."""
        return (self.done - self._known) / max(time.monotonic() - self._began, 1e-9)

    @property
    def text(self) -> str:
        """Score, rate and failures."""
        names = {"perplexity": "nats a token", "transcribe": "WER", "generate": "exact match"}
        share = self._above / self._below if self._below else None
        score = "" if share is None else f"{names.get(self._kind, 'accuracy')} {share:.4f}  "
        return f"{score}{self.rate:.1f}/s  {self.failed} failed"


def part(kind: Kind, example: Example, answer: Answer) -> tuple[float, float]:
    """What one answer adds above and below the line of the running score; nothing of a vector, which has none alone."""
    if kind in ("classify", "infer"):
        return float(answer.label == example.truth), 1.0
    if kind == "generate":
        return float((answer.text or "").strip() == example.truth.strip()), 1.0
    if kind == "perplexity":
        return answer.nats or 0.0, float(answer.tokens or 0)
    if kind == "transcribe":
        return counts(jiwer.process_words(example.truth, answer.text or ""))
    return 0.0, 0.0


@contextmanager
def watching(target: Target, dataset: Dataset, journal: Journal, *, console: Console) -> Iterator[Watch]:
    course = Course(dataset.kind, dataset, journal)
    if course.done:
        console.print(f"{target}: {course.done} of {course.total} were answered before", highlight=False, markup=False)
    with _bar(target, course, console) if console.is_terminal else _lines(target, course, console) as watch:
        yield watch


@contextmanager
def _bar(target: Target, course: Course, console: Console) -> Iterator[Watch]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        TextColumn("{task.fields[window]} at once", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(str(target), total=course.total, completed=course.done, told=course.text, window=0)

        def watch(step: Step) -> None:
            course.add(step.example, step.outcome)
            progress.update(task, completed=course.done, told=course.text, window=step.window)

        yield watch


@contextmanager
def _lines(target: Target, course: Course, console: Console) -> Iterator[Watch]:
    told_at = time.monotonic()

    def watch(step: Step) -> None:
        nonlocal told_at
        course.add(step.example, step.outcome)
        if time.monotonic() - told_at >= LINE_S or course.done == course.total:
            told_at = time.monotonic()
            console.print(f"{target}: {course.done} of {course.total}  {course.text}", highlight=False, markup=False)

    yield watch
