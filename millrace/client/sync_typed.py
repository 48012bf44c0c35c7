"""The calls of `Client` for embeddings, classifications and transcriptions."""

from collections.abc import Generator, Sequence

from millrace.client.loop import LoopThread
from millrace.client.request import PriorityName
from millrace.client.tasks import Embeddings, Label, Segment
from millrace.client.typed import TypedTasks


class SyncTypedTasks:
    """A part of `Client`: `TypedTasks`, method for method."""

    _client: TypedTasks
    _loop: LoopThread

    def embed(
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
        return self._loop.call(
            self._client.embed,
            model,
            texts,
            truncate=truncate,
            model_version=model_version,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
        )

    def classify(
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
        return self._loop.call(
            self._client.classify,
            model,
            text=text,
            image=image,
            audio=audio,
            top_k=top_k,
            model_version=model_version,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
        )

    def transcribe(
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
    ) -> Generator[Segment, None, None]:
        """Streams the transcript of a sound (WAV, FLAC): its segments' texts, one behind the other."""
        stream = self._client.transcribe(
            model,
            audio,
            language=language,
            model_version=model_version,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
        )
        yield from self._loop.iterate(stream)

    def transcribe_text(
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
        return self._loop.call(
            self._client.transcribe_text,
            model,
            audio,
            language=language,
            model_version=model_version,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
        )
