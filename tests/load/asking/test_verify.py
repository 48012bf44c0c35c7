"""What verification finds, and that it finds nothing where nothing is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from millrace.errors import Code, MillraceError
from millrace.load.asking import verify
from millrace.load.asking.asker import Asker
from millrace.load.asking.sending import Received
from millrace.load.asking.verify import KEPT, Finding, Kind, Verifier
from millrace.load.result import Verification
from millrace.load.scenario import Scenario
from millrace.queue import Ending, ModelEntry
from millrace.v1.generation_pb2 import FINISH_REASON_STOP, CompletionDelta, GenerateRequest, GenerateResponse
from millrace.v1.job_pb2 import Timing
from millrace.v1.tasks_pb2 import EmbedRequest, EmbedResponse, TranscribeRequest, TranscribeResponse
from tests.client.typed_worker import Held, TypedWorker, typed
from tests.eventually import eventually
from tests.frontend.playing import frontend
from tests.load.asks import asked
from tests.load.asks import scenario as unverified
from tests.load.faulty import MODEL, PLANTS, TOKENS, Faulty, serving
from tests.proxy import Proxy

WRITER = ModelEntry(
    name="typed", version="1", task="text-generation", digest="", context_length=512, tasks=("generate",)
)


def scenario(address: str, model: str = MODEL, verify: bool = True, **fields: Any) -> Scenario:
    return unverified(model, address, verify=verify, **fields)


def found(asker: Asker) -> Verification:
    verification = asker.verification()
    assert verification is not None
    return verification


@pytest.mark.parametrize(
    ("fault", "kind", "detail"),
    [
        ("lost", "lost result", "offset 3: 4 came instead"),
        ("lost first", "lost result", "offset 1: 2 came instead"),
        ("repeated", "repeated result", "offset 3 behind 3"),
        ("swapped", "reordered result", "offset 4 before 3"),
        ("altered", "altered result", "offset 4"),
        ("early end", "call without an end", "after offset 4"),
        ("late delta", "work after the end", "offset 9 behind the end at 8"),
        ("foreign", "another job's result", "offset 4 is of another-job"),
        ("foreign, renamed", "altered result", "offset 4"),
        ("wrong usage", "wrong count", "9 completion tokens in the usage, 8 received"),
        ("no finish reason", "call without an end", "offset 8 has the usage and no finish reason"),
    ],
)
async def test_a_planted_fault_is_named_once_and_ends_its_call(fault: str, kind: str, detail: str) -> None:
    async with serving(Faulty(PLANTS[fault])) as address, Asker(scenario(address), "generate", "salt") as asker:
        with pytest.raises(MillraceError) as caught:
            await asked(asker, 7)
        verification = found(asker)
    assert caught.value.code is Code.DATA_LOSS
    assert caught.value.reason == "STREAM_FAULTY"
    assert verification.fault_count == 1
    assert [(one.job_id, one.kind) for one in verification.faults] == [("salt-7", kind)]
    assert detail in verification.faults[0].detail


async def test_what_is_lost_of_a_stream_that_hangs_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "AHEAD_S", 0.05)
    faulty = Faulty(PLANTS["lost"], hangs=True)
    async with serving(faulty) as address, Asker(scenario(address), "generate", "salt") as asker:
        async with asyncio.timeout(5):
            with pytest.raises(MillraceError, match="lost result"):
                await asked(asker)


async def test_every_plant_but_none_is_tried() -> None:
    parameters = test_a_planted_fault_is_named_once_and_ends_its_call.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {fault for fault, *_ in parameters} == PLANTS.keys() - {"none"}


async def test_a_good_stream_has_no_fault() -> None:
    async with serving(Faulty(PLANTS["none"])) as address, Asker(scenario(address), "generate", "salt") as asker:
        received = await asked(asker)
        verification = found(asker)
    assert received == [*[Received(1)] * (TOKENS - 1), Received(1, prompt_tokens=5)]
    assert (verification.streams, verification.deltas, verification.fault_count) == (1, TOKENS, 0)


async def test_without_it_streams_are_neither_named_nor_checked() -> None:
    faulty = Faulty(PLANTS["altered"])
    async with (
        serving(faulty) as address,
        Asker(scenario(address, verify=False), "generate", "salt") as asker,
    ):
        assert len(await asked(asker)) == TOKENS
        assert asker.verification() is None
    assert faulty.requests[0].job.job_id == ""


def test_the_first_hundred_faults_are_kept_and_all_are_counted() -> None:
    verifier = Verifier()
    for number in range(KEPT + 20):
        verifier.note(f"job-{number}", Finding(Kind.LOST, ""))
    assert [fault.job_id for fault in verifier.verification().faults] == [f"job-{number}" for number in range(KEPT)]
    assert verifier.verification().fault_count == KEPT + 20


# ── through a real frontend ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def writer(redis_url: str) -> AsyncIterator[TypedWorker]:
    async with TypedWorker(redis_url, WRITER) as played:
        yield played


async def write(held: Held, token_ids: Sequence[int], last: bool = False) -> None:
    """A delta of these tokens."""
    message = GenerateResponse(
        job_id=held.lease.ref.job_id,
        offset=held.offset + 1,
        deltas=[CompletionDelta(text="é" * len(token_ids), token_ids=token_ids)],
    )
    if last:
        message.deltas[0].finish_reason = FINISH_REASON_STOP
        message.usage.completion_tokens = held.offset + 1
        message.timing.attempts = 1
    await held.give(message, Ending() if last else None)


async def test_a_frontend_s_stream_has_no_fault(redis_url: str, writer: TypedWorker) -> None:
    async with (
        frontend(redis_url) as served,
        Asker(scenario(served.grpc_address, "typed"), "generate", "salt") as asker,
    ):
        asking = asyncio.ensure_future(asked(asker))
        held = await writer.next(GenerateRequest)
        for token in range(5):
            await write(held, [token], last=token == 4)
        assert sum(received.tokens for received in await asking) == 5
        assert (found(asker).deltas, found(asker).fault_count) == (5, 0)


async def test_a_stream_that_loses_its_connection_and_goes_on_has_no_fault(redis_url: str, writer: TypedWorker) -> None:
    async with (
        frontend(redis_url) as served,
        Proxy(served.grpc_address) as proxy,
        Asker(scenario(proxy.address, "typed", resume=True), "generate", "salt") as asker,
    ):
        asking = asyncio.ensure_future(asked(asker))
        held = await writer.next(GenerateRequest)
        for token in range(5):
            await write(held, [token])
        await eventually(lambda: found(asker).deltas == 5)
        proxy.break_connections()
        for token in range(5, 9):
            await write(held, [token], last=token == 8)
        assert sum(received.tokens for received in await asking) == 9
        assert (found(asker).streams, found(asker).deltas, found(asker).fault_count) == (1, 9, 0)


async def test_a_transcript_has_no_fault(redis_url: str, tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    sound.write_bytes(b"sound")
    async with (
        typed(redis_url, "transcribe") as listener,
        frontend(redis_url) as served,
        Asker(scenario(served.grpc_address, "typed", requests={"files": [sound]}), "transcribe", "salt") as asker,
    ):
        asking = asyncio.ensure_future(asked(asker))
        held = await listener.next(TranscribeRequest)
        job_id = held.lease.ref.job_id
        await held.give(TranscribeResponse(job_id=job_id, offset=1, text="a"))
        await held.give(TranscribeResponse(job_id=job_id, offset=2, text="b", timing=Timing(attempts=1)), Ending())
        assert await asking == [Received(1), Received(1)]
        assert (found(asker).deltas, found(asker).fault_count) == (2, 0)


async def test_equal_requests_whose_answers_differ_are_a_fault(redis_url: str) -> None:
    async with (
        typed(redis_url, "embed") as embedder,
        frontend(redis_url) as served,
        Asker(scenario(served.grpc_address, "typed"), "embed", "salt") as asker,
    ):

        async def embed(values: list[float]) -> list[Received]:
            asking = asyncio.ensure_future(asked(asker))
            held = await embedder.next(EmbedRequest)
            await held.give(EmbedResponse(embeddings=[EmbedResponse.Embedding(values=values)]), Ending())
            return await asking

        assert await embed([1.0, -2.0]) == await embed([1.0001, -2.0]) == [Received(1)]
        with pytest.raises(MillraceError, match="other answer"):
            await embed([1.0, 2.0])
        assert (found(asker).streams, found(asker).fault_count) == (3, 1)
