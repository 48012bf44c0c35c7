"""A job in a worker's hands: what it asks for, its tokens, and what of them is still to be written."""

from dataclasses import dataclass, field, replace
from random import Random
from typing import Self

from millrace.errors import Code
from millrace.queue import history as running
from millrace.queue.types import Emission, Ending, Lease
from millrace.v1.generation_pb2 import CompletionDelta, GenerateResponse
from services.worker.results import HISTORY_TAG
from services.worker.stub import FIRST, stub_token

BROKEN = Ending(code=Code.INTERNAL, reason="BROKEN", message="the model broke")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request, as its payload says it."""

    tokens: int
    kind: str = "normal"
    """normal, poison (kills its worker), fragile (kills it now and then), or broken (ends with an error)."""
    padding: int = 0
    """Bytes that make it too large for the scripts."""

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        tokens, kind, _ = payload.decode().split(" ", 2)
        return cls(tokens=int(tokens), kind=kind)

    def kills(self, rng: Random) -> bool:
        """Whether its next step ends the worker."""
        return self.kind == "poison" or (self.kind == "fragile" and rng.random() < 0.4)

    def payload(self) -> bytes:
        return f"{self.tokens} {self.kind} {'.' * self.padding}".encode()


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    lease: Lease
    task: Task | None = None
    """None until the request is there."""
    tokens: list[int] = field(default_factory=list)
    unwritten: int = 0
    """How many of the last tokens are in no emission yet."""
    offset: int = 0
    history: bytes = running.EMPTY
    has_said_end: bool = False

    @property
    def is_running(self) -> bool:
        return self.task is not None and not self.is_complete

    @property
    def is_complete(self) -> bool:
        return self.task is not None and len(self.tokens) >= self.task.tokens

    @property
    def is_proven(self) -> bool:
        return self.offset > self.lease.last_offset

    def step(self) -> None:
        """The next token."""
        previous = self.tokens[-1] if self.tokens else FIRST
        self.tokens.append(stub_token(self.lease.ref.job, len(self.tokens), previous, self.lease.epoch))
        self.unwritten += 1

    def emissions(self, *, split: bool, end_apart: bool) -> list[Emission]:
        """What is to be written: merged into one result or one for each token, the end with the last or behind it."""
        unwritten = self.tokens[len(self.tokens) - self.unwritten :]
        self.unwritten = 0
        groups = [[token] for token in unwritten] if split else [unwritten] if unwritten else []
        written = [self._result(group) for group in groups]
        if self.is_complete and not self.has_said_end:
            self.has_said_end = True
            ending = BROKEN if self.task is not None and self.task.kind == "broken" else Ending()
            if written and not end_apart:
                written[-1] = self._emission(written[-1], ending)
            else:
                written.append(self._emission(None, ending))
        return written

    def _result(self, tokens: list[int]) -> Emission:
        self.offset += 1
        delta = CompletionDelta(text="".join(f"{token} " for token in tokens), token_ids=tokens)
        body = GenerateResponse(job_id=self.lease.ref.job_id, offset=self.offset, deltas=[delta]).SerializeToString()
        self.history = running.extend(self.history, body)
        return Emission(
            ref=self.lease.ref,
            token=self.lease.token,
            offset=self.offset,
            history=self.history,
            result=body + HISTORY_TAG + self.history,
            cost=len(self.tokens),
        )

    def _emission(self, result: Emission | None, ending: Ending) -> Emission:
        bare = Emission(ref=self.lease.ref, token=self.lease.token, cost=len(self.tokens))
        return replace(result or bare, ending=ending)
