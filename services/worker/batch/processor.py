"""The border between the batch engine and what its requests mean: a request becomes arrays, arrays become responses.

A job is one part or several, one run each: a long sound is transcribed window by window. The engine makes the parts one
after the other, runs each with those of other jobs, and writes one response for each of them, or for the last alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import Message

from millrace.engine import Failure, Work
from millrace.errors import Code
from services.worker.batch.graph import Array, Feed, Port


class Rejected(Exception):
    """A request that cannot be run: the field that is to blame, by its path in the proto, and why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code=Code.INVALID_ARGUMENT, reason="INVALID_REQUEST", message=message, field=field)


class Failed(Exception):
    """The model ran, and gave nothing that could be answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code=Code.INTERNAL, reason="MODEL_FAILED", message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one run does for one job. Tasks derive from it what they want to know again in `respond`."""

    feed: Feed
    """Each of the graph's inputs, with as many rows as every other one where rows are batched."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Of the graph's named dimensions, before padding: outputs are cut back to them."""
    wanted: frozenset[str] = frozenset()
    """Outputs; empty: all."""
    last: bool = True
    """Whether the job ends with this part."""
    at_once: bool = False
    """Whether `respond` is called before the step ends: it may then raise Failed, or answer None for a part that is not
    the last, and keep what the response to a later one needs."""


class Processor(Protocol):
    """One kind of request to one model. Called on any thread, several at once."""

    def parts(self, work: Work) -> Iterator[Part]:
        """The job's parts, in their order, each made when it is asked for; those whose responses are in
        `work.results` are left out. Equal work gives equal parts. Raises Rejected."""

    def respond(self, part: Part, outputs: Sequence[tuple[Port, Array]]) -> Message | None:
        """The response to one part. Each output has the part's own rows, without what padding added. It raises nothing
        and answers a message, but for parts that are answered `at_once`."""
