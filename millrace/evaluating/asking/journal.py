"""The answers of one model version to one data set, in a file that the next start goes on with.

The first line says what it is; each other is an example's id with its answer or its failure, written as soon as it is
there. A line that was cut by the end of its process is cut off. One process at a time has it.
"""

import fcntl
import hashlib
import json
import secrets
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from pydantic import Field, ValidationError

from millrace.evaluating.asking.answer import Answer, Failure, Outcome
from millrace.evaluating.asking.asker import Options
from millrace.evaluating.asking.target import Target
from millrace.evaluating.data import Dataset
from millrace.evaluating.kinds import Strict

FINAL = "INVALID_ARGUMENT"
"""The code of failures that another call would meet too; the examples of others are asked again at the next start."""


class Head(Strict):
    schema_name: Literal["millrace.evaluation.journal/1"] = Field(
        default="millrace.evaluation.journal/1", alias="schema"
    )
    fingerprint: str
    run: str = Field(description="random; part of the jobs' names, so that another journal has other jobs")


class Line(Strict):
    id: str
    answer: Answer | None = None
    failure: Failure | None = None


def fingerprint(target: Target, dataset: Dataset, options: Options) -> str:
    """Of all that answers depend on."""
    given = [target.model, target.version, target.digest, dataset.kind, dataset.sha256]
    text = json.dumps([*given, options.model_dump(mode="json", exclude={"timeout_s"})])
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """Raises ValueError, when it is entered, for a file that is no journal of these answers, or that another process
    has; OSError where it cannot be written."""

    def __init__(self, path: Path, mark: str, *, fresh: bool = False) -> None:
        """`fresh`: what it holds is forgotten."""
        self.path, self._mark, self._fresh = path, mark, fresh
        self.outcomes: dict[str, Outcome] = {}
        self._attempts: dict[str, int] = {}
        self._run = secrets.token_hex(8)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def is_due(self, example_id: str) -> bool:
        """Whether it has no answer yet, and may still get one."""
        known = self.outcomes.get(example_id)
        return known is None or (isinstance(known, Failure) and known.code != FINAL)

    def job_id(self, example_id: str) -> str:
        """The same for the same attempt, whichever process makes it."""
        text = json.dumps([self._mark, self._run, example_id, self._attempts.get(example_id, 0)])
        return f"evaluate-{hashlib.sha256(text.encode()).hexdigest()[:40]}"

    def keep(self, example_id: str, outcome: Outcome) -> None:
        answer, failure = (None, outcome) if isinstance(outcome, Failure) else (outcome, None)
        line = Line(id=example_id, answer=answer, failure=failure)
        self._write(line)
        self._recall(line)

    @property
    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("the journal is not open")
        return self._file

    def _lock(self) -> None:
        try:
            fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.path.name}: another evaluation is writing to it") from None

    def _read(self) -> None:
        if self._fresh:
            self._opened.truncate(0)
        self._opened.seek(0)
        raw = self._opened.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        self._opened.truncate(len(whole))
        lines = whole.splitlines()
        try:
            if lines:
                self._begin(Head.model_validate_json(lines[0]))
            else:
                self._write(Head(fingerprint=self._mark, run=self._run))
            for line in lines[1:]:
                self._recall(Line.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"{self.path.name} is no journal of an evaluation: remove it, or --fresh") from error

    def _begin(self, head: Head) -> None:
        if head.fingerprint != self._mark:
            raise ValueError(f"{self.path.name} has the answers of another model or to other data: --fresh removes it")
        self._run = head.run

    def _recall(self, line: Line) -> None:
        outcome = line.answer or line.failure
        if outcome is not None:
            self.outcomes[line.id] = outcome
            self._attempts[line.id] = self._attempts.get(line.id, 0) + (line.failure is not None)

    def _write(self, line: Strict) -> None:
        self._opened.write(line.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")
        self._opened.flush()
