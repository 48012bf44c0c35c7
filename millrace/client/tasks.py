"""What typed tasks give: vectors of texts, labels, pieces of a transcript."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from millrace.v1.tasks_pb2 import ClassifyRequest, ClassifyResponse, EmbedResponse, TranscribeResponse

if TYPE_CHECKING:
    import numpy.typing as npt

Vectors: TypeAlias = "npt.NDArray[Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """One vector for each text, in the texts' order."""

    vectors: tuple[tuple[float, ...], ...]
    tokens: int
    """Of all texts, padding left out."""
    message: EmbedResponse = field(repr=False)
    """The whole message, with timing."""

    @property
    def array(self) -> Vectors:
        """float32 [texts, dimensions]. It needs the extra `tensors`."""
        import numpy as np

        return np.array(self.vectors, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    name: str
    score: float
    """Probability in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A piece of a transcript."""

    offset: int
    """1, 2, 3, …"""
    text: str
    start_s: float
    end_s: float
    """Where in the sound it lies."""
    message: TranscribeResponse = field(repr=False)
    """The whole message, with timing and history."""


def make_classify_request(
    model: str,
    model_version: str,
    *,
    text: str | None,
    image: bytes | None,
    audio: bytes | None,
    top_k: int | None,
) -> ClassifyRequest:
    """Raises TypeError where not exactly one of text, image and audio is given."""
    inputs: dict[str, Any] = {"text": text, "image": image, "audio": audio}
    given = {name: value for name, value in inputs.items() if value is not None}
    if len(given) != 1:
        raise TypeError(f"one of {', '.join(inputs)} is needed")
    return ClassifyRequest(model=model, model_version=model_version, top_k=top_k or 0, **given)


def to_embeddings(message: EmbedResponse) -> Embeddings:
    vectors = tuple(tuple(embedding.values) for embedding in message.embeddings)
    return Embeddings(vectors=vectors, tokens=message.tokens, message=message)


def to_labels(message: ClassifyResponse) -> list[Label]:
    return [Label(name=label.name, score=label.score) for label in message.labels]


def to_segment(message: TranscribeResponse) -> Segment:
    return Segment(
        offset=message.offset,
        text=message.text,
        start_s=message.start.ToNanoseconds() / 1e9,
        end_s=message.end.ToNanoseconds() / 1e9,
        message=message,
    )


def to_transcript(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)
