"""Results gathered into one answer."""

from collections.abc import Sequence
from typing import Any

from millrace.errors import InvalidRequest, Violation
from millrace.queue import JobRef
from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    GenerateRequest,
    GenerateResponse,
    TokenLogprobs,
    Usage,
)
from services.frontend.openai.requests import Wanted
from services.frontend.openai.styles import Completion, Style

MOST_SCORES = 1 << 18
"""Log-probabilities in one answer, which takes up to 500 bytes for each while it is written."""


class Answer:
    """All that one job gives. Once it is placed: its `ref`, and when it was submitted, in seconds since 1970."""

    ref: JobRef
    created: int

    def __init__(self, completions: int, most_scores: int) -> None:
        self._scores_left = most_scores
        self.completions = [Completion() for _ in range(completions)]
        self.prompt_scores: list[TokenLogprobs] = []
        self.usage = Usage()

    def place(self, ref: JobRef, created: int) -> None:
        self.ref, self.created = ref, created

    async def add(self, body: bytes) -> None:
        """The next result. Raises InvalidRequest where there are more log-probabilities than one answer holds."""
        response = GenerateResponse.FromString(body)
        self._count([*response.prompt_logprobs, *(score for delta in response.deltas for score in delta.logprobs)])
        for delta in response.deltas:
            self.completions[delta.index].add(delta)
        self.prompt_scores.extend(response.prompt_logprobs)
        if response.HasField("usage"):
            self.usage = response.usage

    def _count(self, scores: Sequence[TokenLogprobs]) -> None:
        self._scores_left -= sum(1 + len(score.top) for score in scores)
        if self._scores_left < 0:
            raise InvalidRequest([Violation("logprobs", "would make the answer too large: ask for fewer, or stream")])


def head(style: Style, kind: str, job_id: str, ref: JobRef, created: int) -> dict[str, Any]:
    """What every object says of its job; `job_id` is the name that the caller knows it by."""
    return {
        "id": style.prefix + job_id,
        "object": kind,
        "created": created,
        "model": ref.model.name,
        "system_fingerprint": str(ref.model),
    }


def to_object(style: Style, wanted: Wanted, answers: Sequence[Answer], job_id: str) -> dict[str, Any]:
    """The choices of a later prompt come behind those of an earlier one."""
    completions = [
        _finished(wanted, number, answer, completion)
        for number, answer in enumerate(answers)
        for completion in answer.completions
    ]
    choices = [style.choice(index, completion) for index, completion in enumerate(completions)]
    told = head(style, style.object, job_id, answers[0].ref, answers[0].created)
    usages = [answer.usage for answer in answers]
    return told | {"choices": choices, "usage": usage_of(usages, prompt_only=wanted.prompt_only)}


def usage_of(usages: Sequence[Usage], *, prompt_only: bool = False) -> dict[str, Any]:
    prompt = sum(usage.prompt_tokens for usage in usages)
    completion = 0 if prompt_only else sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_prompt_tokens for usage in usages)},
    }


def _finished(wanted: Wanted, number: int, answer: Answer, completion: Completion) -> Completion:
    """With the prompt before it, where that is wanted."""
    request = wanted.requests[number]
    completion.scored = request.reporting.HasField("logprobs")
    if wanted.prompt_only:
        completion.text, completion.scores, completion.finish = "", [], FINISH_REASON_LENGTH
    if wanted.echoes:
        completion.text = _prompt(request, answer) + completion.text
        completion.scores = answer.prompt_scores + completion.scores
        completion.from_start = True
    return completion


def _prompt(request: GenerateRequest, answer: Answer) -> str:
    """A prompt of tokens is read from what the worker says of each."""
    if request.HasField("text"):
        return request.text
    return b"".join(score.token for score in answer.prompt_scores).decode(errors="replace")
