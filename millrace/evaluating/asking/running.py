"""All examples, as many at once as the service takes, until each has its outcome in the journal."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from millrace.errors import Code, Exhausted, JobFailed, MillraceError
from millrace.evaluating.asking.answer import Failure, Outcome
from millrace.evaluating.asking.asker import Asker
from millrace.evaluating.asking.journal import Journal
from millrace.evaluating.asking.window import Window
from millrace.evaluating.data import Example

ATTEMPTS = 3
"""Jobs of one example that may end for a reason that lies with the service, before the last counts as its failure."""
PASSING = {Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE, Code.ABORTED}
LOST = "JOB_UNKNOWN"
"""The reason where a stream was interrupted for longer than its job was kept."""
STOPPING = {
    *(Code.UNAVAILABLE, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED),
    *(Code.NOT_FOUND, Code.ALREADY_EXISTS, Code.UNIMPLEMENTED),
}
"""What would meet all other examples too."""
PATIENCE_S = 600.0
"""For how long the service may refuse all calls before the evaluation stops, to be gone on with later."""


@dataclass(frozen=True, slots=True)
class Progress:
    """After each outcome."""

    example: Example
    outcome: Outcome
    window: int
    refusals: int


Watch = Callable[[Progress], None]


async def ask_all(
    asker: Asker, examples: Sequence[Example], journal: Journal, watch: Watch, *, concurrency: int
) -> None:
    """Those of them that are due. An example that fails is one outcome among others.

    Raises MillraceError for what would meet all others too: no service within the client's budget, a full one for
    `PATIENCE_S`, no such model, a key that is not known.
    """
    asking = _Asking(asker, journal, watch, concurrency)
    due = iter([example for example in examples if journal.is_due(example.id)])
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(asking.work(due))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


class _Asking:
    def __init__(self, asker: Asker, journal: Journal, watch: Watch, concurrency: int) -> None:
        self._asker, self._journal, self._watch = asker, journal, watch
        self._window, self._refusals = Window(concurrency), 0
        self._last_outcome = time.monotonic()

    async def work(self, due: Iterator[Example]) -> None:
        for example in due:
            outcome = await self._outcome(example)
            self._last_outcome = time.monotonic()
            self._journal.keep(example.id, outcome)
            self._watch(Progress(example, outcome, self._window.size, self._refusals))

    async def _outcome(self, example: Example) -> Outcome:
        attempts = 0
        while True:
            try:
                async with self._window.place():
                    answer = await self._asker.ask(example, self._job_id(example, attempts))
                self._window.answered()
                return answer
            except Exhausted as refusal:
                self._refuse(refusal)
            except JobFailed as failure:
                attempts += 1
                if failure.code not in PASSING or attempts == ATTEMPTS:
                    return _failed(failure)
            except MillraceError as error:
                if error.reason == LOST and attempts + 1 < ATTEMPTS:
                    attempts += 1
                elif error.code in STOPPING:
                    raise
                else:
                    return _failed(error)
            except (ValueError, OSError) as error:
                return Failure(code="UNKNOWN", reason="ANSWER_UNUSABLE", message=str(error))

    def _job_id(self, example: Example, attempts: int) -> str:
        return self._journal.job_id(example.id) + (f"-{attempts}" if attempts else "")

    def _refuse(self, refusal: Exhausted) -> None:
        """Raises it where nothing has come of any example for too long."""
        self._refusals += 1
        self._window.refused(refusal.retry_after_s)
        if time.monotonic() + refusal.retry_after_s > self._last_outcome + PATIENCE_S:
            raise refusal


def _failed(error: MillraceError) -> Failure:
    return Failure(code=error.code.name, reason=error.reason, message=error.message)
