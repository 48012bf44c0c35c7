"""What ModelStatistics tells of a fleet of real workers is what was sent to it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import numpy as np
import pytest

from millrace.oip.inference_pb2 import (
    ModelInferRequest,
    ModelStatistics,
    ModelStatisticsRequest,
)
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.v1.generation_pb2 import GenerateRequest, Stopping
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from tests.frontend.playing import read, reason
from tests.frontend.tensors import Inference
from tests.graphs import VOCABULARY, embedding, write_graph
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, fleet


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Two workers that serve the model `embedding` of tensors, and the model `stub` of text."""
    write_graph(tmp_path, "embedding", embedding())
    write_stub(tmp_path)
    async with fleet(tmp_path, frontends=1, workers=2) as running:
        yield running


@pytest.fixture
async def channel(served: Fleet) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(served.addresses[0]) as opened:
        yield opened


@pytest.fixture
def inference(channel: grpc.aio.Channel) -> Inference:
    return GRPCInferenceServiceStub(channel)


def ids(rows: int, largest: int = 3) -> ModelInferRequest:
    """One that is larger than the vocabulary makes the model fail."""
    request = ModelInferRequest(model_name="embedding")
    request.inputs.add(name="ids", datatype="INT64", shape=[rows, 4])
    request.raw_input_contents.append(np.full((rows, 4), largest, np.int64).tobytes())
    return request


async def told(inference: Inference, name: str, version: str = "") -> ModelStatistics:
    (statistics,) = (await inference.ModelStatistics(ModelStatisticsRequest(name=name, version=version))).model_stats
    return statistics


async def test_the_sums_over_all_workers_are_what_was_sent_and_stay_when_one_dies(
    inference: Inference, served: Fleet
) -> None:
    before = await told(inference, "embedding")
    assert (before.name, before.version, before.inference_count) == ("embedding", "1", 0)
    began = time.time()
    calls = [inference.ModelInfer(ids(rows)) for rows in (1, 2, 3) * 20]
    await asyncio.gather(*calls)
    spent_ns = (time.time() - began) * 1e9
    bad = [inference.ModelInfer(ids(1, VOCABULARY)) for _ in range(3)]
    outcomes = await asyncio.gather(*bad, return_exceptions=True)
    assert all(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)

    after = await told(inference, "embedding")
    stats = after.inference_stats
    assert (stats.success.count, stats.fail.count, after.inference_count) == (60, 3, 120)
    assert (stats.queue.count, stats.compute_input.count, stats.compute_infer.count) == (60, 60, 60)
    assert 0 < stats.compute_infer.ns <= stats.success.ns < 60 * spent_ns
    parts = stats.queue.ns + stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns
    assert parts == pytest.approx(stats.success.ns, rel=0.05)
    assert began - 1 < after.last_inference / 1000 < time.time() + 1

    assert sum(batch.batch_size * batch.compute_infer.count for batch in after.batch_stats) == 123
    assert sum(batch.compute_infer.count for batch in after.batch_stats) == after.execution_count
    assert all(batch.compute_infer.ns > 0 for batch in after.batch_stats)
    assert (stats.cache_hit.count, stats.cache_miss.count) == (0, 0)

    await asyncio.to_thread(served.workers[0].kill)
    assert (await told(inference, "embedding")).inference_count == 120


async def test_a_model_that_generates_is_counted_by_jobs(inference: Inference, channel: grpc.aio.Channel) -> None:
    generation = TextGenerationServiceStub(channel)
    request = GenerateRequest(model="stub", text="count", stopping=Stopping(max_tokens=8))
    await asyncio.gather(*(read(generation.Generate(request)) for _ in range(5)))
    after = await told(inference, "stub", "1")
    stats = after.inference_stats
    assert (stats.success.count, stats.fail.count, after.inference_count) == (5, 0, 5)
    assert 8 <= after.execution_count <= 5 * 8 + 5
    assert sum(batch.batch_size * batch.compute_infer.count for batch in after.batch_stats) >= 5 * 8
    assert stats.compute_infer.ns <= stats.success.ns


async def test_models_are_told_all_together_or_by_their_names(inference: Inference) -> None:
    answer = await inference.ModelStatistics(ModelStatisticsRequest())
    assert [(told.name, told.version) for told in answer.model_stats] == [("embedding", "1"), ("stub", "1")]
    for name, version, expected in (("nothing", "", "MODEL_UNKNOWN"), ("stub", "9", "MODEL_VERSION_UNKNOWN")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await inference.ModelStatistics(ModelStatisticsRequest(name=name, version=version))
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, expected)
