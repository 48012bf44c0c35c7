"""The calls of `AsyncClient` for embeddings, classifications and transcriptions."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

import grpc.aio

from millrace.client.calls import Calls
from millrace.client.follow import Place
from millrace.client.frontends import Frontend
from millrace.client.infer import Deadline
from millrace.client.request import PriorityName, make_job_options
from millrace.client.tasks import (
    Embeddings,
    Label,
    Segment,
    make_classify_request,
    to_embeddings,
    to_labels,
    to_segment,
    to_transcript,
)
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.tasks_pb2 import EmbedRequest, TranscribeRequest, TranscribeResponse
from millrace.v1.tasks_pb2_grpc import ClassificationServiceStub, EmbeddingServiceStub, SpeechServiceStub

T = TypeVar("T")


class TypedTasks:
    """A part of `AsyncClient`.

    A call that loses its frontend is made again on another one; with a `job_id` it finds the job that it has started,
    which is kept for `resume_window_s`, without one the model may run twice. One that is cancelled, or left before its
    end, takes its job along.
    """

    _calls: Calls

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        truncate: bool = False,
        model_version: str = "",
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
    ) -> Embeddings:
        """A vector for each text. One that is longer than the model takes is an error, or cut with `truncate`."""
        job = _options(job_id, resume_window_s, timeout_s, priority)
        request = EmbedRequest(
            model=model, model_version=model_version, texts=_several(texts), truncate=truncate, job=job
        )
        deadline = Deadline(timeout_s)
        answer = await self._answer(
            job_id,
            lambda frontend: EmbeddingServiceStub(frontend.channel).Embed(
                request, metadata=self._calls.metadata, timeout=deadline.left_s
            ),
        )
        return to_embeddings(answer)

    async def classify(
        self,
        model: str,
        *,
        text: str | None = None,
        image: bytes | None = None,
        audio: bytes | None = None,
        top_k: int | None = None,
        model_version: str = "",
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
    ) -> list[Label]:
        """The labels of a text, of an image (PNG, JPEG, WebP) or of a sound (WAV, FLAC), the best first."""
        request = make_classify_request(model, model_version, text=text, image=image, audio=audio, top_k=top_k)
        job = _options(job_id, resume_window_s, timeout_s, priority)
        request.job.CopyFrom(job)
        deadline = Deadline(timeout_s)
        answer = await self._answer(
            job_id,
            lambda frontend: ClassificationServiceStub(frontend.channel).Classify(
                request, metadata=self._calls.metadata, timeout=deadline.left_s
            ),
        )
        return to_labels(answer)

    async def transcribe(
        self,
        model: str,
        audio: bytes,
        *,
        language: str = "",
        model_version: str = "",
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
    ) -> AsyncGenerator[Segment, None]:
        """Streams the transcript of a sound (WAV, FLAC): its segments' texts, one behind the other."""
        job = make_job_options(
            job_id or uuid.uuid4().hex, resume_window_s=resume_window_s, timeout_s=timeout_s, priority=priority
        )
        request = TranscribeRequest(model=model, model_version=model_version, audio=audio, language=language, job=job)
        place = Place()

        def begin(frontend: Frontend) -> "grpc.aio.UnaryStreamCall[TranscribeRequest, TranscribeResponse]":
            request.job.after_offset, request.job.after_history = place.offset, place.history
            return SpeechServiceStub(frontend.channel).Transcribe(request, metadata=self._calls.metadata)

        results = self._calls.follow(begin, place, waits=True)
        try:
            async with aclosing(results):
                async for message in results:
                    yield to_segment(message)
        finally:
            if not (place.ended or place.refused):
                await self._calls.abandon(job.job_id)

    async def transcribe_text(
        self,
        model: str,
        audio: bytes,
        *,
        language: str = "",
        model_version: str = "",
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
    ) -> str:
        """The whole transcript at once; otherwise as `transcribe`."""
        stream = self.transcribe(
            model,
            audio,
            language=language,
            model_version=model_version,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
        )
        return to_transcript([segment async for segment in stream])

    async def _answer(self, job_id: str | None, call: Callable[[Frontend], Awaitable[T]]) -> T:
        try:
            return await self._calls.ask(call, retry_late=False)
        except asyncio.CancelledError:
            if job_id is not None:
                await self._calls.abandon(job_id)
            raise


def _options(
    job_id: str | None, resume_window_s: float, timeout_s: float | None, priority: PriorityName | None
) -> JobOptions:
    """Nobody can come back for a job without a name."""
    if job_id is None:
        return make_job_options("", timeout_s=timeout_s, priority=priority)
    return make_job_options(job_id, resume_window_s=resume_window_s, timeout_s=timeout_s, priority=priority)


def _several(texts: Sequence[str]) -> list[str]:
    """Raises TypeError for a single text, which would be taken for as many as it has letters."""
    if isinstance(texts, str):
        raise TypeError("texts must be several: [text]")
    return list(texts)
