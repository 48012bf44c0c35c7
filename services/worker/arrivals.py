"""What comes to an engine while it steps, kept in order until its next step."""

import threading
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
        self._places: dict[str, int] = {}
        self._promised: set[str] = set()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many places in the engine the leases have, or will have."""
        return sum(self._places.values())

    def join(self, lease: str, job: T) -> None:
        self.promise(lease, 1)
        self.fulfil(lease, job)

    def promise(self, lease: str, places: int) -> None:
        """A job that will need so many places is being prepared; `fulfil` or `end` follows."""
        with self._changed:
            self._places[lease] = places
            self._promised.add(lease)

    def fulfil(self, lease: str, job: T) -> None:
        """What was promised; of no consequence where the lease has left meanwhile."""
        with self._changed:
            if lease in self._promised:
                self._promised.remove(lease)
                self._news.append((lease, job))
            self._changed.notify()

    def end(self, output: Output) -> None:
        """For a job that ends without a place."""
        with self._changed:
            if output.lease in self._promised:
                self._promised.remove(output.lease)
                del self._places[output.lease]
            self._news.append((output.lease, output))
            self._changed.notify()

    def leave(self, lease: str) -> None:
        """It may have a place, wait for one, or be unknown."""
        with self._changed:
            self._places.pop(lease, None)
            self._promised.discard(lease)
            self._news.append((lease, None))
            self._changed.notify()

    def freed(self, lease: str) -> None:
        """One of its places has become free by itself."""
        with self._changed:
            if self._places.get(lease, 0) > 1:
                self._places[lease] -= 1
            else:
                self._places.pop(lease, None)

    def wait(self, timeout_s: float) -> bool:
        """Where jobs are promised and nothing has come: waits for the first of them, so long at most. Whether any are
        promised still or have come."""
        with self._changed:
            if self._promised and not self._news:
                self._changed.wait(timeout_s)
            return bool(self._promised or self._news)

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
