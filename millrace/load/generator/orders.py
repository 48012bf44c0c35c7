"""What the coordinator and its generators tell each other, one JSON object a line.

coordinator ──Order──▶ generator       on its standard input, which it holds open
coordinator ◀─ready─── generator       it has read its files, and knows what to send
coordinator ──Begin──▶ generator
coordinator ◀─interval generator       about each second
coordinator ◀─done──── generator       the last one
"""

from collections.abc import Mapping

from pydantic import Field

from millrace.load.result import Generator, Interval, Stage, Verification
from millrace.load.scenario import Scenario, Strict, Task


class Order(Strict):
    """A generator's share: the requests whose number, and the callers whose number, modulo `generators` is `own`."""

    scenario: Scenario
    task: Task
    salt: str = Field(description="makes the run's job ids its own")
    own: int
    generators: int


class Begin(Strict):
    """When measuring begins, by the clock that all processes of a machine share."""

    monotonic_s: float


class Done(Strict):
    stages: list[Stage]
    generator: Generator
    verification: Verification | None
    failures: Mapping[str, str] = Field(
        default={}, description="what the first request that failed was told, by reason"
    )


class Report(Strict):
    """Exactly one of the fields."""

    ready: bool = False
    interval: Interval | None = None
    done: Done | None = None
