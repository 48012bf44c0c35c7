"""Embeddings, classifications and transcriptions."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from millrace.load.asking.asker import Asker
from millrace.load.asking.sending import Received
from millrace.load.asking.typed import classifying, embedding
from millrace.queue import Ending, ModelEntry
from millrace.v1.tasks_pb2 import (
    ClassifyRequest,
    ClassifyResponse,
    EmbedRequest,
    EmbedResponse,
    TranscribeRequest,
    TranscribeResponse,
)
from tests.client.typed_worker import TypedWorker, typed
from tests.frontend.playing import frontend
from tests.load.asks import asked, complaint, scenario

EMBEDDING = EmbedResponse.Embedding(values=[1.0])


async def test_an_embedding_counts_its_rows_and_takes_its_texts_in_turn(redis_url: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a\nb\nc\n")
    requests = {"prompts": prompts, "texts": 2, "timeout_s": 9}
    async with (
        typed(redis_url, "embed") as embedder,
        frontend(redis_url) as served,
        Asker(scenario("typed", served.grpc_address, requests), "embed", "salt") as asker,
    ):
        sent = []
        for index in (0, 1, 4):
            asking = asyncio.ensure_future(asked(asker, index))
            held = await embedder.next(EmbedRequest)
            sent.append(list(held.request.texts))
            await held.give(EmbedResponse(embeddings=[EMBEDDING] * 2, tokens=7), Ending())
            assert await asking == [Received(2, prompt_tokens=7)]
    assert sent == [["a", "b"], ["c", "a"], ["c", "a"]]


def classifier(task: str) -> ModelEntry:
    return ModelEntry(name="typed", version="1", task=task, digest="", tasks=("classify",))


@pytest.mark.parametrize(
    ("model_task", "field"),
    [("image-classification", "image"), ("audio-classification", "audio"), ("text-classification", "text")],
)
async def test_a_classification_sends_what_the_model_takes(
    redis_url: str, tmp_path: Path, model_task: str, field: str
) -> None:
    (tmp_path / "a").write_bytes(b"content")
    requests: dict[str, Any] = {"prompt": "content"} if field == "text" else {"files": [tmp_path / "a"]}
    async with (
        TypedWorker(redis_url, classifier(model_task)) as played,
        frontend(redis_url) as served,
        Asker(scenario("typed", served.grpc_address, requests), "classify", "salt") as asker,
    ):
        asking = asyncio.ensure_future(asked(asker))
        held = await played.next(ClassifyRequest)
        assert held.request.WhichOneof("input") == field
        assert getattr(held.request, field) in ("content", b"content")
        await held.give(ClassifyResponse(labels=[ClassifyResponse.Label(name="x", score=1)]), Ending())
        assert await asking == [Received(1)]


@pytest.mark.parametrize(
    ("model_task", "requests", "text"),
    [
        ("image-classification", {}, "requests.files is missing: image-classification takes files"),
        ("image-classification", {"prompt": "a"}, "give requests.files"),
        ("text-classification", {"files": ["a"]}, "give requests.prompt"),
        ("tensor", {}, "typed is a model of tensor, which does not classify"),
    ],
)
async def test_a_classification_that_does_not_fit_the_model_is_an_error(
    redis_url: str, model_task: str, requests: Any, text: str
) -> None:
    async with TypedWorker(redis_url, classifier(model_task)), frontend(redis_url) as served:
        assert text in await complaint(scenario("typed", served.grpc_address, requests), "classify")


async def test_a_model_that_is_not_served_is_named(redis_url: str) -> None:
    async with TypedWorker(redis_url, classifier("text-classification")), frontend(redis_url) as served:
        text = await complaint(scenario("other", served.grpc_address), "classify")
    assert text == "no model other is served; there are: typed"


async def test_a_transcript_counts_its_segments(redis_url: str, tmp_path: Path) -> None:
    sounds = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for sound in sounds:
        sound.write_bytes(sound.name.encode())
    async with (
        typed(redis_url, "transcribe") as listener,
        frontend(redis_url) as served,
        Asker(scenario("typed", served.grpc_address, {"files": sounds}, resume=True), "transcribe", "salt") as asker,
    ):
        asking = asyncio.ensure_future(asked(asker, 1))
        held = await listener.next(TranscribeRequest)
        assert (held.request.audio, held.lease.ref.job_id) == (b"b.wav", "salt-1")
        await held.give(TranscribeResponse(offset=1, text="a"))
        await held.give(TranscribeResponse(offset=2, text="b"), Ending())
        assert await asking == [Received(1), Received(1)]


def labels(**scores: float) -> ClassifyResponse:
    return ClassifyResponse(labels=[ClassifyResponse.Label(name=name, score=score) for name, score in scores.items()])


@pytest.mark.parametrize(
    ("later", "same"),
    [
        (labels(cat=0.5, dog=0.5), True),
        (labels(dog=0.5004, cat=0.4996), True),
        (labels(cat=0.6, dog=0.4), False),
        (labels(cat=0.5, cow=0.5), False),
        (labels(cat=0.5), False),
    ],
)
def test_labels_are_the_same_by_their_scores_in_whatever_order(later: ClassifyResponse, same: bool) -> None:
    sending = classifying(scenario(), "text-classification")
    assert sending.same(labels(cat=0.5, dog=0.5), later) is same


def vectors(*rows: list[float]) -> EmbedResponse:
    return EmbedResponse(embeddings=[EmbedResponse.Embedding(values=values) for values in rows])


@pytest.mark.parametrize(
    ("later", "same"),
    [
        (vectors([1, -100]), True),
        (vectors([1.05, -100]), True),
        (vectors([1.5, -100]), False),
        (vectors([1]), False),
        (vectors([1, -100], [1, -100]), False),
    ],
)
def test_vectors_are_the_same_within_a_thousandth_of_the_largest_value(later: EmbedResponse, same: bool) -> None:
    assert embedding(scenario()).same(vectors([1, -100]), later) is same
