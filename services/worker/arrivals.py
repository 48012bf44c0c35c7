"""What comes to an engine while it steps, kept in order until its next step."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from millrace.engine import Output

T = TypeVar("T")


class Arrivals(Generic[T]):
    """Jobs that join, jobs that have ended before they could, and leases to forget. Filled on any thread, taken on the
    engine's."""

    def __init__(self) -> None:
        self._news: deque[tuple[str, T | Output | None]] = deque()
        self._expected: set[str] = set()

    def __len__(self) -> int:
        """How many leases have, or will have, a place in the engine."""
        return len(self._expected)

    def join(self, lease: str, job: T) -> None:
        self._expected.add(lease)
        self._news.append((lease, job))

    def end(self, output: Output) -> None:
        """For a job that ends without a place."""
        self._news.append((output.lease, output))

    def leave(self, lease: str) -> None:
        """It may have a place, wait for one, or be unknown."""
        self._expected.discard(lease)
        self._news.append((lease, None))

    def freed(self, lease: str) -> None:
        """Its place has become free by itself."""
        self._expected.discard(lease)

    def take(self, join: Callable[[T], None], leave: Callable[[str], None]) -> list[Output]:
        """Hands over what has come; answers the outputs of the jobs that have ended, but for those that left since."""
        ended: dict[str, Output] = {}
        while self._news:
            lease, news = self._news.popleft()
            if news is None:
                ended.pop(lease, None)
                leave(lease)
            elif isinstance(news, Output):
                ended[lease] = news
            else:
                join(news)
        return list(ended.values())
