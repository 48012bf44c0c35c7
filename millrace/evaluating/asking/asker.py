"""One example as one call, and what of its answer is kept."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypedDict

from pydantic import Field

from millrace.client import AsyncClient
from millrace.client.request import PriorityName
from millrace.evaluating.asking.answer import Answer, from_scores, from_vector
from millrace.evaluating.asking.target import Target
from millrace.evaluating.asking.tensors import cast, labelled
from millrace.evaluating.data import Example
from millrace.evaluating.kinds import Kind, Strict

RESUME_WINDOW_S = 60.0
"""For how long a job is kept for an evaluation that was killed."""


class Options(Strict):
    """How the model is asked: with others, answers are others."""

    max_tokens: int = Field(default=64, ge=1, description="of a completion; it is greedy")
    stop: Sequence[str] = Field(default=(), description="texts at which it ends")
    output: str = Field(default="", description="of tensors: which one has the scores, or the label")
    labels: Sequence[str] = Field(default=(), description="the names of the scores' columns; none: 0, 1, 2, …")
    truncate: bool = Field(default=False, description="whether texts that are too long to embed are cut")
    language: str = Field(default="", description="of sounds, BCP-47")
    timeout_s: float = Field(default=600.0, gt=0, description="for one call")


class Job(TypedDict):
    model_version: str
    job_id: str
    resume_window_s: float
    timeout_s: float
    priority: PriorityName


class Asker:
    """Asks one model version, at the priority of what may wait."""

    def __init__(self, client: AsyncClient, target: Target, kind: Kind, options: Options) -> None:
        self._client, self._target, self._options = client, target, options
        asked: Mapping[Kind, Callable[[Example, Job], Awaitable[Answer]]] = {
            "classify": self._classify,
            "infer": self._infer,
            "generate": self._generate,
            "perplexity": self._price,
            "embed": self._embed,
            "transcribe": self._transcribe,
        }
        self._ask = asked[kind]

    async def ask(self, example: Example, job_id: str) -> Answer:
        """A repetition under the same `job_id` finds the job that the first call has started, while it is kept.

        Raises MillraceError, ValueError for an answer that cannot be judged, OSError for a file that has gone.
        """
        job = Job(
            model_version=self._target.version,
            job_id=job_id,
            resume_window_s=RESUME_WINDOW_S,
            timeout_s=self._options.timeout_s,
            priority="batch",
        )
        return await self._ask(example, job)

    async def _classify(self, example: Example, job: Job) -> Answer:
        given: dict[str, Any] = {example.medium: await _content(example) if example.file else example.text}
        labels = await self._client.classify(self._target.model, top_k=0, **given, **job)
        return from_scores([(label.name, label.score) for label in labels])

    async def _infer(self, example: Example, job: Job) -> Answer:
        inputs = cast(example.arrays, self._target.inputs)
        outputs = await self._client.infer(
            self._target.model, inputs, outputs=[self._options.output] if self._options.output else None, **job
        )
        return labelled(outputs, self._options.output, self._options.labels)

    async def _generate(self, example: Example, job: Job) -> Answer:
        completion = await self._client.generate_text(
            self._target.model,
            example.text,
            temperature=0.0,
            max_tokens=self._options.max_tokens,
            stop_strings=self._options.stop,
            **job,
        )
        return Answer(text=completion.text)

    async def _price(self, example: Example, job: Job) -> Answer:
        """What the text costs under the model: the log-probability of each token but the first, given those before."""
        stream = self._client.generate(
            self._target.model, example.text, temperature=0.0, max_tokens=1, prompt_logprobs=0, **job
        )
        async with aclosing(stream) as deltas:
            known = [token async for delta in deltas for token in delta.message.prompt_logprobs][1:]
        if not known:
            raise ValueError("the text is a single token, of which nothing is to be said")
        return Answer(
            nats=-sum(token.logprob for token in known),
            tokens=len(known),
            bytes=sum(len(token.token) for token in known),
        )

    async def _embed(self, example: Example, job: Job) -> Answer:
        answer = await self._client.embed(self._target.model, [example.text], truncate=self._options.truncate, **job)
        return from_vector(answer.vectors[0])

    async def _transcribe(self, example: Example, job: Job) -> Answer:
        sound = await _content(example)
        text = await self._client.transcribe_text(self._target.model, sound, language=self._options.language, **job)
        return Answer(text=text)


async def _content(example: Example) -> bytes:
    assert example.file is not None
    return await asyncio.to_thread(example.file.read_bytes)
