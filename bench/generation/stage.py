"""Where contestants meet over one workload: all are opened, then take turns in rounds; who fails is out, by name."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType

from bench.children import MeasurementFailed
from bench.completions import Completions
from bench.generation.workloads import Requests
from bench.run import Progress

Measure = Callable[[Requests], Awaitable[Completions]]
FAILURES = (MeasurementFailed, OSError, TimeoutError, ValueError)
REASON_CHARS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Contestant:
    """Somebody who serves requests with some precision."""

    name: str
    precision: str
    open: Callable[[str], AbstractAsyncContextManager[Measure]]
    """Makes ready for a workload, by its name."""
    is_server: bool = True
    """Whether it takes requests while others run; else it gets all at once."""

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}"


@dataclass(slots=True)
class Stage:
    """One workload. A context manager, within which the contestants are open."""

    progress: Progress
    workload: str
    contestants: Sequence[Contestant]
    warm: Requests
    """What servers are asked before all else, and does not count."""
    measured: dict[Contestant, list[Completions]] = field(default_factory=dict)
    """Of each that is not out, one entry a round."""
    failures: dict[Contestant, str] = field(default_factory=dict)
    """Why each that is out is out: the last line of the error, which a traceback says most in."""
    _open: dict[Contestant, Measure] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> "Stage":
        for contestant in self.contestants:
            try:
                self._open[contestant] = await self._stack.enter_async_context(contestant.open(self.workload))
            except FAILURES as error:
                self._out(contestant, error)
                continue
            if contestant.is_server and await self.ask(contestant, self.warm):
                self.progress.say(self.workload, str(contestant), "ready")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def present(self) -> list[Contestant]:
        return list(self._open)

    async def ask(self, contestant: Contestant, requests: Requests) -> Completions | None:
        """What came of it; None, and the contestant is out, where that is not what was asked for."""
        try:
            found = await self._open[contestant](requests)
            check(requests, found)
        except FAILURES as error:
            self._out(contestant, error)
            return None
        return found

    async def round(self, number: int, requests: Requests) -> None:
        """All that are present, each time another one first."""
        turns = deque(self.present)
        turns.rotate(-number)
        for contestant in turns:
            if found := await self.ask(contestant, requests):
                self.measured.setdefault(contestant, []).append(found)
                self.progress.say(self.workload, f"round {number + 1}: {contestant}", f"{found.rate:.1f} tokens/s")

    def _out(self, contestant: Contestant, error: Exception) -> None:
        *_, last = str(error).strip().splitlines() or [type(error).__name__]
        self.failures[contestant] = last[-REASON_CHARS:]
        self._open.pop(contestant, None)
        self.measured.pop(contestant, None)
        self.progress.say(self.workload, str(contestant), f"out: {self.failures[contestant]}")


def check(requests: Requests, found: Completions) -> None:
    """Raises ValueError where texts are missing, or not as long as they were to be."""
    lengths = [len(token_ids) for token_ids in found.token_ids]
    if lengths != list(requests.tokens):
        wrong = sum(one != other for one, other in zip(lengths, requests.tokens, strict=False))
        raise ValueError(f"{wrong} of {len(requests)} texts are not as long as they were to be")


def share_alike(expected: Completions, found: Completions) -> float:
    """Of the texts, how many are the same to the last token; a near tie may fall the other way in another library."""
    pairs = list(zip(expected.token_ids, found.token_ids, strict=True))
    return sum(one == other for one, other in pairs) / len(pairs)
