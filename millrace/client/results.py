"""What a generation gives: deltas while it runs, and the completion that they add up to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from millrace.v1.generation_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP, CompletionDelta, GenerateResponse


class FinishReason(StrEnum):
    """Why a completion has ended."""

    STOP = "stop"
    """End-of-sequence token, stop token or stop string."""
    LENGTH = "length"
    """max_tokens or the context length."""
    OTHER = "other"
    """A reason that this version of the client does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one message adds to one of the job's completions."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    stop_match: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One message of the stream. `text`, `token_ids` and `finish_reason` are those of the first completion."""

    offset: int
    """1, 2, 3, …"""
    parts: tuple[Part, ...]
    """One for each completion that advanced."""
    usage: Usage | None = None
    """In the last delta only."""
    message: GenerateResponse = field(repr=False)
    """The whole message, with log-probabilities, timing and history."""

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if part.index == 0)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token for part in self.parts if part.index == 0 for token in part.token_ids)

    @property
    def finish_reason(self) -> FinishReason | None:
        return next((part.finish_reason for part in self.parts if part.index == 0), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole generation. `text`, `token_ids` and `finish_reason` are those of the first completion."""

    job_id: str
    texts: tuple[str, ...]
    """One for each completion asked for."""
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    usage: Usage | None

    @property
    def text(self) -> str:
        return self.texts[0] if self.texts else ""


def to_delta(message: GenerateResponse) -> Delta:
    usage = message.usage
    return Delta(
        offset=message.offset,
        parts=tuple(_part(delta) for delta in message.deltas),
        usage=Usage(
            prompt_tokens=usage.prompt_tokens,
            cached_prompt_tokens=usage.cached_prompt_tokens,
            completion_tokens=usage.completion_tokens,
            seed=usage.seed,
        )
        if message.HasField("usage")
        else None,
        message=message,
    )


def to_completion(job_id: str, deltas: Sequence[Delta]) -> Completion:
    parts = [part for delta in deltas for part in delta.parts]
    texts = [""] * (max((part.index for part in parts), default=0) + 1)
    for part in parts:
        texts[part.index] += part.text
    return Completion(
        job_id=job_id,
        texts=tuple(texts),
        token_ids=tuple(token for part in parts if part.index == 0 for token in part.token_ids),
        finish_reason=next((part.finish_reason for part in parts if part.index == 0 and part.finish_reason), None),
        usage=deltas[-1].usage if deltas else None,
    )


def _part(delta: CompletionDelta) -> Part:
    return Part(
        index=delta.index,
        text=delta.text,
        token_ids=tuple(delta.token_ids),
        finish_reason=_finish_reason(delta.finish_reason) if delta.finish_reason else None,
        stop_match=delta.stop_match,
    )


def _finish_reason(value: int) -> FinishReason:
    known = {int(FINISH_REASON_STOP): FinishReason.STOP, int(FINISH_REASON_LENGTH): FinishReason.LENGTH}
    return known.get(value, FinishReason.OTHER)
