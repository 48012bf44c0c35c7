"""Results as server-sent events, which any frontend can continue.

One result becomes one event, which holds all its choices, so that whoever has seen an event has seen the whole result.
The last result is followed by the usage, where it is wanted, and [DONE]. Each event's id is a cursor: what its reader
has seen when it has seen the event. A browser gives it back as Last-Event-ID, and is sent what is behind it, to the
byte what an undisturbed stream has: nothing in an event depends on the frontend, or on when it is sent.

Source: the HTML standard, section "Server-sent events".
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Self

from millrace.errors import DataLoss, InvalidRequest, Violation
from millrace.queue import JobRef, Result, history
from millrace.v1.generation_pb2 import CompletionDelta, GenerateResponse, Usage
from services.frontend.openai.answers import head, usage_of
from services.frontend.openai.fields import UINT64, to_json
from services.frontend.openai.logprobs import characters
from services.frontend.openai.styles import Completion, Style

HEADER = "last-event-id"
RETRY = b"retry: 500\n"
"""After how many milliseconds a browser comes back; it stands in the stream's first event."""
PATTERN = re.compile(
    r"(?P<job>[A-Za-z0-9_-]{1,64})\.(?P<offset>[0-9]{1,20})\.(?P<history>[0-9a-f]{16})"
    r"(?:\.(?P<flags>[utd]{1,3}))?(?:\.(?P<lengths>[0-9]{1,9}(?:-[0-9]{1,9}){0,15}))?"
)
"""JOB.OFFSET.HISTORY, then what is not always there: FLAGS (u: the usage is wanted, t: it was told, d: [DONE] was sent)
and LENGTHS, the characters of each completion whose tokens' places are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """What a reader has seen of a job."""

    job_id: str
    offset: int = 0
    history: bytes = history.EMPTY
    with_usage: bool = False
    told: bool = False
    """The usage was sent."""
    done: bool = False
    lengths: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidRequest."""
        found = PATTERN.fullmatch(text)
        if found is None or int(found["offset"]) > UINT64:
            raise InvalidRequest([Violation("Last-Event-ID", "is no id of an event of this service")])
        flags = found["flags"] or ""
        return cls(
            job_id=found["job"],
            offset=int(found["offset"]),
            history=bytes.fromhex(found["history"]),
            with_usage="u" in flags,
            told="t" in flags,
            done="d" in flags,
            lengths=tuple(map(int, (found["lengths"] or "").split("-"))) if found["lengths"] else (),
        )

    def __str__(self) -> str:
        flags = "u" * self.with_usage + "t" * self.told + "d" * self.done
        parts = (self.job_id, str(self.offset), self.history.hex(), flags, "-".join(map(str, self.lengths)))
        return ".".join(part for part in parts if part)


class Events:
    """One job's stream behind `cursor`. `echo` is a prompt that stands before each of its `completions`."""

    def __init__(
        self, style: Style, ref: JobRef, created: int, cursor: Cursor, *, completions: int = 0, echo: str = ""
    ) -> None:
        self._style, self._cursor = style, cursor
        self._head = head(style, style.chunk_object, ref.job_id, ref, created)
        self._completions, self._echo = completions, echo
        self._resumed_at = cursor.offset

    def encode(self, result: Result, body: bytes) -> bytes:
        """The events of one result. The one at which a stream is resumed comes first: it was seen, and only what
        follows it may still be to tell. Raises DataLoss where it is not the one that was seen."""
        response = GenerateResponse.FromString(body)
        events = b""
        if result.offset != self._resumed_at:
            self._cursor = replace(self._cursor, offset=result.offset, history=result.history)
            events = self._choices(response)
        elif result.history != self._cursor.history:
            raise DataLoss("the results in the log are not those that were sent", reason="HISTORY_DIFFERS")
        if response.HasField("usage") and self._cursor.with_usage and not self._cursor.told:
            self._cursor = replace(self._cursor, told=True)
            events += self._usage(response.usage)
        return events

    def done(self) -> bytes:
        self._cursor = replace(self._cursor, done=True)
        return self._event("[DONE]")

    def _choices(self, response: GenerateResponse) -> bytes:
        """The first event begins every completion; none is made of a result that tells of no completion."""
        first = self._cursor.offset == 1
        fresh = {delta.index: delta for delta in response.deltas}
        indexes = sorted(fresh.keys() | set(range(self._completions if first else 0)))
        choices = [self._choice(index, fresh.get(index, CompletionDelta()), first=first) for index in indexes]
        if not choices:
            return b""
        usage = {"usage": None} if self._cursor.with_usage else {}
        return (RETRY if first else b"") + self._event(to_json(self._head | {"choices": choices} | usage))

    def _choice(self, index: int, delta: CompletionDelta, *, first: bool) -> dict[str, Any]:
        completion = Completion(text=self._echo if first else "", scored=bool(delta.logprobs))
        completion.add(delta)
        if completion.scored:
            completion.offset = self._advance(index, sum(characters(score.token) for score in completion.scores))
        return self._style.chunk(index, completion, first=first)

    def _advance(self, index: int, by: int) -> int:
        """Where the completion's text stood before."""
        lengths = list(self._cursor.lengths) + [0] * (index + 1 - len(self._cursor.lengths))
        before = lengths[index]
        lengths[index] += by
        self._cursor = replace(self._cursor, lengths=tuple(lengths))
        return before

    def _usage(self, usage: Usage) -> bytes:
        return self._event(to_json(self._head | {"choices": [], "usage": usage_of([usage])}))

    def _event(self, data: str) -> bytes:
        return f"id: {self._cursor}\ndata: {data}\n\n".encode()


def error_event(described: dict[str, object]) -> bytes:
    """Without an id: nothing was seen by it."""
    return f"data: {to_json(described)}\n\n".encode()
