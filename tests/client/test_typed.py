"""Embeddings, classifications and transcriptions as a Python caller sees them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

import millrace
from millrace import AsyncClient, Code
from millrace.client.tasks import Label
from millrace.client.typed import TypedTasks
from millrace.errors import InvalidRequest, JobFailed, MillraceError
from millrace.queue import Ending, Priority, State
from millrace.v1.tasks_pb2 import (
    ClassifyRequest,
    ClassifyResponse,
    EmbedRequest,
    EmbedResponse,
    TranscribeRequest,
    TranscribeResponse,
)
from services.frontend.server import Frontend
from tests.client.typed_worker import TypedWorker, typed
from tests.eventually import eventually
from tests.proxy import Proxy

VECTORS = EmbedResponse(embeddings=[EmbedResponse.Embedding(values=[1, 2]), EmbedResponse.Embedding(values=[3, 4])])
LABELS = ClassifyResponse(labels=[ClassifyResponse.Label(name="cat", score=0.75)])


def piece(offset: int, text: str) -> TranscribeResponse:
    return TranscribeResponse(
        offset=offset, text=text, start=Duration(seconds=offset), end=Duration(seconds=offset + 1)
    )


@pytest.fixture
async def embedder(redis_url: str, served: Frontend) -> AsyncIterator[TypedWorker]:
    async with typed(redis_url, "embed") as played:
        yield played


@pytest.fixture
async def classifier(redis_url: str, served: Frontend) -> AsyncIterator[TypedWorker]:
    async with typed(redis_url, "classify") as played:
        yield played


@pytest.fixture
async def listener(redis_url: str, served: Frontend) -> AsyncIterator[TypedWorker]:
    async with typed(redis_url, "transcribe") as played:
        yield played


async def test_texts_become_vectors(client: AsyncClient, embedder: TypedWorker) -> None:
    call = asyncio.ensure_future(client.embed("typed", ["a", ""], truncate=True, priority="batch", timeout_s=20))
    held = await embedder.next(EmbedRequest)
    assert (list(held.request.texts), held.request.truncate, held.request.HasField("job")) == (["a", ""], True, False)
    assert (held.lease.task, held.lease.priority, held.lease.cost) == ("embed", Priority.BATCH, 2)
    assert 18_000 < held.lease.deadline_ms - held.lease.submit_ms <= 20_000
    await held.give(VECTORS, Ending())
    answer = await call
    assert answer.vectors == ((1, 2), (3, 4))
    assert answer.array.dtype == np.float32


async def test_a_text_alone_is_not_taken_for_many(client: AsyncClient) -> None:
    with pytest.raises(TypeError, match="several"):
        await client.embed("typed", "not a list")


@pytest.mark.parametrize(
    "given", [{"text": "a"}, {"image": b"\x89PNG"}, {"audio": b"RIFF"}], ids=["text", "image", "audio"]
)
async def test_an_input_becomes_labels(client: AsyncClient, classifier: TypedWorker, given: dict[str, bytes]) -> None:
    call = asyncio.ensure_future(client.classify("typed", top_k=3, **given))  # type: ignore[arg-type]
    held = await classifier.next(ClassifyRequest)
    (kind,) = given
    assert (held.request.WhichOneof("input"), getattr(held.request, kind), held.request.top_k) == (kind, given[kind], 3)
    await held.give(LABELS, Ending())
    assert await call == [Label(name="cat", score=0.75)]


async def test_one_kind_of_input_is_needed(client: AsyncClient) -> None:
    with pytest.raises(TypeError, match="one of text, image, audio"):
        await client.classify("typed", text="a", image=b"b")


async def test_a_transcript_comes_piece_by_piece(client: AsyncClient, listener: TypedWorker) -> None:
    async with aclosing(client.transcribe("typed", b"RIFF", language="de")) as segments:
        first = asyncio.ensure_future(anext(segments))
        held = await listener.next(TranscribeRequest)
        assert (held.request.audio, held.request.language) == (b"RIFF", "de")
        await held.give(piece(1, "guten "))
        assert ((await first).text, (await first).start_s, (await first).end_s) == ("guten ", 1.0, 2.0)


async def test_a_transcript_goes_on_behind_a_lost_connection(served: Frontend, listener: TypedWorker) -> None:
    async with Proxy(served.grpc_address) as proxy, AsyncClient(proxy.address, retry_s=10) as client:
        segments = client.transcribe("typed", b"RIFF")
        first = asyncio.ensure_future(anext(segments))
        held = await listener.next(TranscribeRequest)
        await held.give(piece(1, "guten "))
        assert (await first).text == "guten "
        proxy.break_connections()
        await held.give(piece(2, "Tag"), Ending())
        assert [segment.text async for segment in segments] == ["Tag"]


async def test_a_transcript_that_is_left_takes_its_job_along(client: AsyncClient, listener: TypedWorker) -> None:
    stream = client.transcribe("typed", b"RIFF", job_id="mine")
    first = asyncio.ensure_future(anext(stream))
    held = await listener.next(TranscribeRequest)
    await held.give(piece(1, "guten "))
    await first
    await stream.aclose()
    record = await listener.queue.inspect(held.lease.ref)
    assert record is not None
    assert (record.state, record.ending and record.ending.code) == (State.ENDED, Code.CANCELLED)


async def test_a_call_that_is_cancelled_takes_its_job_along(client: AsyncClient, embedder: TypedWorker) -> None:
    call = asyncio.ensure_future(client.embed("typed", ["a"], job_id="mine"))
    held = await embedder.next(EmbedRequest)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await embedder.ending(held.lease.ref)).code is Code.CANCELLED


async def test_the_workers_verdict_on_a_request_names_its_field(client: AsyncClient, embedder: TypedWorker) -> None:
    call = asyncio.ensure_future(client.embed("typed", ["a"]))
    held = await embedder.next(EmbedRequest)
    ending = Ending(code=Code.INVALID_ARGUMENT, reason="INVALID_REQUEST", message="is too long", field="texts[0]")
    await held.give(EmbedResponse(), ending)
    with pytest.raises(InvalidRequest) as caught:
        await call
    assert [violation.field for violation in caught.value.violations] == ["texts[0]"]


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda client: client.embed("", ["a"]), "model"),
        (lambda client: client.embed("typed", []), "texts"),
        (lambda client: client.embed("typed", ["a"] * 1025), "texts"),
        (lambda client: client.classify("typed", image=b""), "image"),
        (lambda client: client.transcribe_text("typed", b""), "audio"),
        (lambda client: client.transcribe_text("typed", b"x", language="de_DE"), "language"),
        (lambda client: client.embed("typed", ["a"], job_id="?"), "job.job_id"),
    ],
)
async def test_a_bad_request_names_its_field(client: AsyncClient, call: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await call(client)  # type: ignore[operator]
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_model_of_another_task_says_how_it_is_called(client: AsyncClient, embedder: TypedWorker) -> None:
    with pytest.raises(MillraceError, match="does not take Classify: it is called by Embed") as caught:
        await client.classify("typed", text="a")
    assert (caught.value.code, caught.value.reason) == (Code.UNIMPLEMENTED, "TASK_UNIMPLEMENTED")


async def test_a_failed_job_is_an_error(client: AsyncClient, classifier: TypedWorker) -> None:
    call = asyncio.ensure_future(client.classify("typed", text="a"))
    held = await classifier.next(ClassifyRequest)
    await held.give(LABELS, Ending(code=Code.INTERNAL, reason="MODEL_FAILED", message="broken"))
    with pytest.raises(JobFailed, match="broken"):
        await call


async def test_an_unnamed_call_leaves_nothing_in_redis(client: AsyncClient, embedder: TypedWorker) -> None:
    call = asyncio.ensure_future(client.embed("typed", ["a"]))
    held = await embedder.next(EmbedRequest)
    await held.give(VECTORS, Ending())
    await call

    async def gone() -> bool:
        return await embedder.queue.inspect(held.lease.ref) is None

    await eventually(gone)


def test_the_client_without_an_event_loop_has_each_of_them() -> None:
    methods = [name for name in vars(TypedTasks) if not name.startswith("_")]
    assert sorted(methods) == ["classify", "embed", "transcribe", "transcribe_text"]
    assert all(hasattr(millrace.Client, name) for name in methods)


async def test_it_works_without_an_event_loop(redis_url: str, served: Frontend, embedder: TypedWorker) -> None:
    with millrace.Client(served.grpc_address) as client:
        call = asyncio.ensure_future(asyncio.to_thread(client.embed, "typed", ["a"]))
        held = await embedder.next(EmbedRequest)
        await held.give(VECTORS, Ending())
        assert (await call).vectors == ((1, 2), (3, 4))
