"""An event loop whose clock is virtual: nobody ever waits, it leaps to the next timer."""

import asyncio
import selectors


class _Leaps(selectors.SelectSelector):
    """Where a real selector would sleep, time passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever come")
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 0 s. Everything on it must be deterministic: no threads, no sockets, no sets of objects."""

    def __init__(self) -> None:
        self._leaps = _Leaps()
        super().__init__(self._leaps)

    def time(self) -> float:
        return self._leaps.now
