"""Embeddings, classifications and transcriptions: requests of texts or of files, prepared once and sent in turn."""

from math import isclose
from typing import Any

import grpc.aio

from millrace.load.asking.prompts import read_file, read_texts
from millrace.load.asking.sending import Answering, Received, Streaming, Turns, job_options, name_copy
from millrace.load.asking.verify import TOLERANCE, Transcription
from millrace.load.scenario import Scenario
from millrace.v1.tasks_pb2 import (
    ClassifyRequest,
    ClassifyResponse,
    EmbedRequest,
    EmbedResponse,
    TranscribeRequest,
)
from millrace.v1.tasks_pb2_grpc import ClassificationServiceStub, EmbeddingServiceStub, SpeechServiceStub

MOST_TURNS = 1000
"""Embeddings that are prepared; more texts than they hold are left out."""
FILES = {"image-classification": "image", "audio-classification": "audio"}
"""The field of a ClassifyRequest that a model's task takes, where it is a file's."""


def embedding(scenario: Scenario) -> Answering:
    """Raises ValueError for texts that cannot be read."""
    texts, count = read_texts(scenario.requests), scenario.requests.texts
    starts = range(0, min(len(texts), MOST_TURNS) * count, count)
    batches = [[texts[(start + place) % len(texts)] for place in range(count)] for start in starts]
    turns = Turns([EmbedRequest(**_head(scenario), texts=batch) for batch in batches])
    return Answering(
        prepare=turns.prepare,
        name=name_copy,
        method=_embed,
        count=lambda message: Received(len(message.embeddings), message.tokens),
        variants=len(turns),
        same=_same_vectors,
    )


def classifying(scenario: Scenario, model_task: str) -> Answering:
    """Raises ValueError for a model that takes something else than the scenario gives."""
    turns = Turns([ClassifyRequest(**_head(scenario), **given) for given in _classified(scenario, model_task)])
    return Answering(
        prepare=turns.prepare,
        name=name_copy,
        method=_classify,
        count=lambda message: Received(1),
        variants=len(turns),
        same=_same_labels,
    )


def transcribing(scenario: Scenario) -> Streaming:
    """Raises ValueError for sounds that are not given or cannot be read."""
    turns = Turns([TranscribeRequest(**_head(scenario), audio=sound) for sound in _files(scenario, "transcribe")])
    return Streaming(
        prepare=turns.prepare,
        name=name_copy,
        method=_transcribe,
        count=lambda message: Received(1),
        stream=Transcription,
    )


def _head(scenario: Scenario) -> dict[str, Any]:
    return {"model": scenario.model, "model_version": scenario.model_version, "job": job_options(scenario)}


def _classified(scenario: Scenario, model_task: str) -> list[dict[str, Any]]:
    requests = scenario.requests
    if model_task in FILES:
        if requests.prompt is not None or requests.prompts is not None:
            raise ValueError(f"requests.prompt means nothing to {scenario.model}, {model_task}: give requests.files")
        return [{FILES[model_task]: content} for content in _files(scenario, model_task)]
    if model_task != "text-classification":
        raise ValueError(f"{scenario.model} is a model of {model_task}, which does not classify")
    if requests.files:
        raise ValueError(f"requests.files means nothing to {scenario.model}, {model_task}: give requests.prompt")
    return [{"text": text} for text in read_texts(requests)]


def _files(scenario: Scenario, reader: str) -> list[bytes]:
    if not scenario.requests.files:
        raise ValueError(f"requests.files is missing: {reader} takes files")
    return [read_file("requests.files", path) for path in scenario.requests.files]


def _embed(channel: grpc.aio.Channel) -> Any:
    return EmbeddingServiceStub(channel).Embed


def _classify(channel: grpc.aio.Channel) -> Any:
    return ClassificationServiceStub(channel).Classify


def _transcribe(channel: grpc.aio.Channel) -> Any:
    return SpeechServiceStub(channel).Transcribe


def _same_vectors(first: EmbedResponse, later: EmbedResponse) -> bool:
    if len(first.embeddings) != len(later.embeddings):
        return False
    return all(map(_same_vector, first.embeddings, later.embeddings))


def _same_vector(first: EmbedResponse.Embedding, later: EmbedResponse.Embedding) -> bool:
    if first.values == later.values:
        return True
    largest = max(map(abs, first.values), default=0.0)
    return len(first.values) == len(later.values) and all(
        isclose(one, other, rel_tol=0, abs_tol=TOLERANCE * largest)
        for one, other in zip(first.values, later.values, strict=True)
    )


def _same_labels(first: ClassifyResponse, later: ClassifyResponse) -> bool:
    scores = {label.name: label.score for label in later.labels}
    return len(scores) == len(first.labels) and all(
        abs(label.score - scores.get(label.name, -1.0)) <= TOLERANCE for label in first.labels
    )
