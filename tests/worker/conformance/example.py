"""What the suite must know of an engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from millrace.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An engine, and requests for it. Each request gives the same results whenever it is run: a seed is set, or none is
    needed."""

    build: Callable[[], Engine]
    """Gives a warm engine that holds no job: a new one, or the same again."""
    requests: Sequence[bytes]
    """Serialised task requests that it can run, each in less than `most_steps` steps. At least three, of different
    lengths where results come one by one."""
    bad_request: bytes
    """One that can be parsed and not be run."""
    read: Callable[[Sequence[bytes]], object]
    """What a job's results, serialised, amount to: the same for two runs that gave the same, however it was divided."""
    most_steps: int = 500
    uses_epoch: bool = False
    """The outputs depend on the lease's epoch, as nothing but a stub's may."""
