"""Answers that are given again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc.aio
import pytest
from prometheus_client import generate_latest

from millrace.errors import Code
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse, ModelStatisticsRequest
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.queue import Ending, ModelEntry, Priority
from services.frontend import cache as caching
from services.frontend.cache import OVERHEAD_BYTES, ResponseCache
from services.frontend.metrics import Metrics
from services.frontend.oip.infer import make_infer
from services.frontend.parse import Position, ValidOptions, ValidRequest
from services.frontend.server import Frontend
from tests.frontend.playing import frontend
from tests.frontend.tensors import ENTRY, Inference, TensorWorker, infer

CACHED = replace(ENTRY, response_cache=True, digest="a" * 64)
OPTIONS = ValidOptions(job_id="", position=Position(), priority=Priority.STANDARD, resume_window_ms=0, timeout_ms=1_000)


@asynccontextmanager
async def serving(
    redis_url: str, entry: ModelEntry = CACHED
) -> AsyncIterator[tuple[Frontend, Inference, TensorWorker]]:
    async with (
        TensorWorker(redis_url, entry) as worker,
        frontend(redis_url, response_cache_bytes=1 << 20) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        yield served, GRPCInferenceServiceStub(channel), worker


async def ask(
    inference: Inference, worker: TensorWorker, request: ModelInferRequest, raw: bytes, tenant: str = "a"
) -> ModelInferResponse:
    """The answer of a call that reaches the worker, which then gives `raw`."""
    call = inference.ModelInfer(request, metadata=(("millrace-tenant", tenant),))
    held = await worker.take_tensors()
    await held.answer(raw)
    return await call


async def test_an_equal_request_is_answered_without_a_worker_and_under_its_own_id(redis_url: str) -> None:
    async with serving(redis_url) as (served, inference, worker):
        first = await ask(inference, worker, infer(id="first"), b"1" * 12)
        for request_id in ("second", ""):
            again = await inference.ModelInfer(infer(id=request_id), metadata=(("millrace-tenant", "a"),))
            assert (again.id, again.raw_output_contents) == (request_id, first.raw_output_contents)
        other = infer()
        other.parameters["priority"].int64_param = 1
        assert (await inference.ModelInfer(other, metadata=(("millrace-tenant", "a"),))).id == ""
        counted = generate_latest(served.metrics.registry).decode()
        assert 'cache_lookups_total{model="double/3",outcome="hit"} 3.0' in counted
        assert 'cache_lookups_total{model="double/3",outcome="miss"} 1.0' in counted
        (told,) = (await inference.ModelStatistics(ModelStatisticsRequest(name="double"))).model_stats
        stats = told.inference_stats
        assert (stats.cache_hit.count, stats.cache_miss.count, stats.success.count) == (3, 1, 3)
        assert stats.cache_hit.ns > 0


async def test_another_tenant_or_another_request_is_another_answer(redis_url: str) -> None:
    async with serving(redis_url) as (_, inference, worker):
        await ask(inference, worker, infer(), b"1" * 12)
        changed, parameter = infer(), infer()
        changed.raw_input_contents[1] = b"\x01"
        parameter.parameters["mode"].string_param = "other"
        for request, tenant, raw in ((infer(), "b", b"2"), (changed, "a", b"3"), (parameter, "a", b"4")):
            answer = await ask(inference, worker, request, raw * 12, tenant)
            assert answer.raw_output_contents[0] == raw * 12


async def test_a_named_job_has_its_own_life(redis_url: str) -> None:
    async with serving(redis_url) as (_, inference, worker):
        await ask(inference, worker, infer(), b"1" * 12)
        named = infer()
        named.parameters["millrace_job_id"].string_param = "mine"
        assert (await ask(inference, worker, named, b"2" * 12)).raw_output_contents[0] == b"2" * 12


async def test_an_error_is_not_kept(redis_url: str) -> None:
    async with serving(redis_url) as (_, inference, worker):
        call = inference.ModelInfer(infer(), metadata=(("millrace-tenant", "a"),))
        await (await worker.take_tensors()).end(Ending(code=Code.INTERNAL, reason="BROKEN", message="no"))
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert (await ask(inference, worker, infer(), b"2" * 12)).raw_output_contents[0] == b"2" * 12


async def test_a_model_that_does_not_allow_it_is_always_asked(redis_url: str) -> None:
    async with serving(redis_url, replace(CACHED, response_cache=False)) as (_, inference, worker):
        for raw in (b"1", b"2"):
            assert (await ask(inference, worker, infer(), raw * 12)).raw_output_contents[0] == raw * 12


# ── the cache alone ──────────────────────────────────────────────────────────────────────────────────────────────────


def typed(payload: bytes) -> ValidRequest:
    return ValidRequest(
        task="embed",
        model="double",
        model_version="",
        fingerprint="",
        payload=payload,
        cost=1,
        options=OPTIONS,
    )


async def keep(cache: ResponseCache, payload: bytes, answer: bytes, entry: ModelEntry = CACHED) -> None:
    found = await cache.look_up("a", entry, typed(payload))
    assert found.answer is None
    found.keep(answer)


async def kept(cache: ResponseCache, payload: bytes, entry: ModelEntry = CACHED) -> bytes | None:
    return (await cache.look_up("a", entry, typed(payload))).answer


async def test_what_was_not_used_for_longest_goes_first_and_the_bytes_are_bounded() -> None:
    metrics = Metrics()
    cache = ResponseCache(8 * (OVERHEAD_BYTES + 100), metrics)
    for number in range(8):
        await keep(cache, bytes([number]), b"x" * 100)
    assert await kept(cache, b"\x00") == b"x" * 100
    await keep(cache, b"new", b"y" * 100)
    assert [await kept(cache, bytes([number])) is not None for number in range(8)] == [True, False] + [True] * 6
    assert metrics.registry.get_sample_value("millrace_frontend_cache_bytes") == 8 * (OVERHEAD_BYTES + 100)
    await keep(cache, b"large", b"z" * 3 * OVERHEAD_BYTES)
    assert await kept(cache, b"large") is None


async def test_an_answer_does_not_outlive_the_files_that_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    cache, replaced = ResponseCache(1 << 20, metrics), replace(CACHED, digest="b" * 64)
    await keep(cache, b"r", b"old")
    late = await cache.look_up("a", CACHED, typed(b"late"))
    assert await kept(cache, b"r", replaced) is None
    assert metrics.registry.get_sample_value("millrace_frontend_cache_bytes") == 0
    late.keep(b"of the old files")
    await keep(cache, b"r", b"while workers disagree", replaced)
    assert await kept(cache, b"r", replaced) is None
    monkeypatch.setattr(caching, "SETTLE_S", 0.0)
    await keep(cache, b"r", b"new", replaced)
    assert await kept(cache, b"r", replaced) == b"new"
    assert await kept(cache, b"late", replaced) is None


async def test_a_large_request_is_hashed_like_a_small_one() -> None:
    cache = ResponseCache(1 << 20, Metrics())
    for size in (10, 1 << 20):
        first, second = bytes(size), bytes(size - 1) + b"\x01"
        await keep(cache, first, b"first")
        await keep(cache, second, b"second")
        assert (await kept(cache, first), await kept(cache, second)) == (b"first", b"second")


async def test_parts_of_a_request_cannot_be_shifted_into_each_other() -> None:
    cache, requests = ResponseCache(1 << 20, Metrics()), []
    for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"", b"abc")):
        message = ModelInferRequest(model_name="double", raw_input_contents=parts)
        requests.append(make_infer(message, message.SerializeToString(), OPTIONS))
    for request in requests:
        found = await cache.look_up("a", CACHED, request)
        assert found.answer is None
        found.keep(b"answer")


async def test_equal_requests_at_once_all_run_and_the_last_answer_stays() -> None:
    cache = ResponseCache(1 << 20, Metrics())
    first, second = await asyncio.gather(*(cache.look_up("a", CACHED, typed(b"r")) for _ in range(2)))
    first.keep(b"1")
    second.keep(b"2")
    assert await kept(cache, b"r") == b"2"


async def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = ResponseCache(0, Metrics())
    await keep(cache, b"r", b"answer")
    assert await kept(cache, b"r") is None
