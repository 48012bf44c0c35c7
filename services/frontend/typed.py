"""The way in for embeddings, classifications and transcriptions."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from millrace.errors import Violation
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.tasks_pb2 import (
    ClassifyRequest,
    ClassifyResponse,
    EmbedRequest,
    EmbedResponse,
    TranscribeRequest,
    TranscribeResponse,
)
from services.frontend.parse import ValidRequest, decode, make_fingerprint, make_options, raise_any
from services.frontend.rules import Bounds, Violations, check_job

MOST_TEXTS = 1024
SOUND_BYTES_PER_ROW = 480_000
"""What a model's run is taken to get through: 15 s of 16 kHz, 16 bit."""
LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """One kind of request."""

    message: type[Any]
    response: type[Any]
    check: Callable[[Any], Violations]
    """All that is wrong with it, its JobOptions aside."""
    cost: Callable[[Any], int]
    """Rows, as far as the request shows them."""
    streams: bool = False
    """Whether it may have more than one result, behind any of which a caller goes on."""

    has_media: bool = True
    """Whether it may hold an image or a sound, and be as large as tensors are."""

    def most_bytes(self, bounds: Bounds) -> int:
        return bounds.max_tensor_bytes if self.has_media else bounds.max_request_bytes


def check_embed(request: EmbedRequest) -> Violations:
    yield from _check_model(request.model)
    if not 1 <= len(request.texts) <= MOST_TEXTS:
        yield Violation("texts", f"must be 1 to {MOST_TEXTS}, not {len(request.texts)}")


def check_classify(request: ClassifyRequest) -> Violations:
    yield from _check_model(request.model)
    kind = request.WhichOneof("input")
    if kind is None:
        yield Violation("input", "is required: one of text, image, audio")
    elif not getattr(request, kind):
        yield Violation(kind, "must not be empty")


def check_transcribe(request: TranscribeRequest) -> Violations:
    yield from _check_model(request.model)
    if not request.audio:
        yield Violation("audio", "must not be empty")
    if request.language and not LANGUAGE.fullmatch(request.language):
        yield Violation("language", "must be a BCP-47 tag, such as de or en-GB")


TYPED = {
    "embed": Typed(
        message=EmbedRequest,
        response=EmbedResponse,
        check=check_embed,
        cost=lambda request: len(request.texts),
        has_media=False,
    ),
    "classify": Typed(message=ClassifyRequest, response=ClassifyResponse, check=check_classify, cost=lambda request: 1),
    "transcribe": Typed(
        message=TranscribeRequest,
        response=TranscribeResponse,
        check=check_transcribe,
        cost=lambda request: 1 + len(request.audio) // SOUND_BYTES_PER_ROW,
        streams=True,
    ),
}
"""By their fields in SubmitJobRequest."""


def parse_typed(task: str, raw: bytes, bounds: Bounds) -> ValidRequest:
    """Raises InvalidRequest with the violations."""
    kind = TYPED[task]
    request = decode(kind.message, raw, kind.most_bytes(bounds))
    raise_any(kind.check(request), check_job(request.job, bounds, attachable=kind.streams))
    return valid_typed(task, request, request.job, bounds)


def valid_typed(task: str, request: Any, options: JobOptions, bounds: Bounds) -> ValidRequest:
    """A request of TYPED[task].message that was checked."""
    valid_options = make_options(options, bounds)
    request.ClearField("job")
    return ValidRequest(
        task=task,
        model=request.model,
        model_version=request.model_version,
        fingerprint=make_fingerprint(request),
        payload=request.SerializeToString(),
        cost=TYPED[task].cost(request),
        options=valid_options,
    )


def without_job(task: str, answer: bytes) -> bytes:
    """A serialised response, without what it says of the job that gave it."""
    response = TYPED[task].response.FromString(answer)
    for field in ("job_id", "timing"):
        response.ClearField(field)
    serialised: bytes = response.SerializeToString()
    return serialised


def _check_model(model: str) -> Violations:
    if not model:
        yield Violation("model", "is required")
