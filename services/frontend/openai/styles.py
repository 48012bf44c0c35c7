"""What differs between text completions and chat: what is read of a body, and how a completion is written."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    CompletionDelta,
    FinishReason,
    TokenLogprobs,
)
from services.frontend.openai.fields import Fields
from services.frontend.openai.logprobs import for_chat, for_text
from services.frontend.openai.requests import Wanted, read_chat, read_completions

FINISHES = {FINISH_REASON_UNSPECIFIED: None, FINISH_REASON_STOP: "stop", FINISH_REASON_LENGTH: "length"}


@dataclass(slots=True, kw_only=True)
class Completion:
    """One completion, whole or as far as one event tells of it. An echoed prompt is part of it."""

    text: str = ""
    scores: list[TokenLogprobs] = field(default_factory=list)
    scored: bool = False
    """Log-probabilities were asked for."""
    offset: int = 0
    """The character at which the first scored token begins."""
    from_start: bool = False
    """The first scored token is the prompt's first."""
    finish: FinishReason.ValueType = FINISH_REASON_UNSPECIFIED

    def add(self, delta: CompletionDelta) -> None:
        self.text += delta.text
        self.scores.extend(delta.logprobs)
        self.finish = delta.finish_reason or self.finish


class Style(Protocol):
    """`object` and `chunk_object` name what is answered, whole and streamed; its id is `prefix` and the job's id."""

    prefix: str
    object: str
    chunk_object: str

    def read(self, fields: Fields) -> Wanted:
        """Raises InvalidRequest."""

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        """A whole completion."""

    def chunk(self, index: int, completion: Completion, *, first: bool) -> dict[str, Any]:
        """What is new of one; `first` begins it."""


class Text:
    """/v1/completions."""

    prefix = "cmpl-"
    object = chunk_object = "text_completion"

    def read(self, fields: Fields) -> Wanted:
        return read_completions(fields)

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        scores = for_text(completion.scores, completion.offset, first_has_none=completion.from_start)
        return {
            "index": index,
            "text": completion.text,
            "logprobs": scores if completion.scored else None,
            "finish_reason": finish_reason(completion),
        }

    def chunk(self, index: int, completion: Completion, *, first: bool) -> dict[str, Any]:
        return self.choice(index, completion)


class Chat:
    """/v1/chat/completions."""

    prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def read(self, fields: Fields) -> Wanted:
        return read_chat(fields)

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        message = {"role": "assistant", "content": completion.text, "refusal": None}
        return self._with(index, completion, {"message": message})

    def chunk(self, index: int, completion: Completion, *, first: bool) -> dict[str, Any]:
        role = {"role": "assistant"} if first else {}
        return self._with(index, completion, {"delta": role | {"content": completion.text}})

    def _with(self, index: int, completion: Completion, told: dict[str, Any]) -> dict[str, Any]:
        scores = for_chat(completion.scores) if completion.scored else None
        return {"index": index} | told | {"logprobs": scores, "finish_reason": finish_reason(completion)}


def finish_reason(completion: Completion) -> str | None:
    """A reason that is not known here is an end all the same."""
    return FINISHES.get(completion.finish, "stop")
