"""What an experiment is told, and what it answers."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of an experiment to run. Its size is the promise's; only how long the fault goes on is cut short."""

    long: bool = False
    seed: int = 0
    """What is random is drawn from it."""

    def of(self, short: int, long: int) -> int:
        return long if self.long else short


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened, and whether it is what was promised."""

    done: str
    """The fault and the load, in words, with the numbers that were really reached."""
    counts: dict[str, int]
    """What must be exact: jobs, lost, repeated, …"""
    figures: dict[str, str] = field(default_factory=dict)
    """What was measured, with its unit and, where there is one, its bound."""
    failures: tuple[str, ...] = ()
    """Each way in which the promise was broken; none: the experiment has passed."""

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """`run` raises nothing for a broken promise; an exception is a broken experiment, and counts as not passed."""

    number: int
    title: str
    run: Callable[[Scale], Coroutine[Any, Any, Outcome]]
    only_long: bool = False
    """Not in the short round, unless it is asked for by its number."""


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
