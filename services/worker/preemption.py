"""Which jobs give way to others of a higher class, while the engine has no room for them.

BATCH gives way to STANDARD and INTERACTIVE, STANDARD to INTERACTIVE. A job that gives way goes back to the front of its
queue with all its results, and goes on behind them where there is room again.
"""

from collections.abc import Iterable

from millrace.queue import Priority
from services.worker.results import Held

LOOK_S = 0.05
"""How often a host without room looks whether a higher class waits, which costs one short command."""
KEPT_S = 0.2
"""A job that was taken is kept at least so long, so that none goes back and forth more often than that."""
MOST_AT_ONCE = 64


def may_give_way(held: Held) -> bool:
    """Whether it may ever: it is not of the highest class, and has no strike."""
    return held.lease.priority < max(Priority) and held.lease.strikes == 0


def candidates(jobs: Iterable[Held], now: float) -> list[Held]:
    """The jobs that may give way now, the first to go first: of the lowest class, in it what loses least work, then the
    newest. `now` as time.monotonic."""
    ready = [held for held in jobs if may_give_way(held) and now - held.taken_at >= KEPT_S]
    ready.sort(key=lambda held: (held.lease.priority, held.cost, -held.taken_at))
    return ready[:MOST_AT_ONCE]
