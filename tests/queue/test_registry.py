"""Workers are known as long as they announce themselves, models for a week after."""

import pytest

from millrace.errors import Unavailable
from millrace.queue import ModelEntry, Registry, WorkerEntry, connect
from millrace.queue.registry import MODEL_MS, WORKER_MS
from tests.queue.bench import Bench

MODEL = ModelEntry(name="story", version="1", task="generate", digest="0" * 64)


def worker(worker_id: str) -> WorkerEntry:
    return WorkerEntry(worker_id=worker_id, device="cpu", execution_provider="CPU", state="ready", models=("story/1",))


async def test_a_worker_that_falls_silent_is_gone_and_its_model_stays(bench: Bench) -> None:
    registry = Registry(bench.redis)
    await registry.announce(worker("w1"), [MODEL])
    await bench.be_away(WORKER_MS / 1000 - 1)
    await registry.announce(worker("w2"), [])
    assert await registry.workers() == [worker("w1"), worker("w2")]
    await bench.be_away(1)
    assert await registry.workers() == [worker("w2")]
    await bench.be_away(MODEL_MS / 1000 - 10)
    assert (await registry.workers(), await registry.models()) == ([], [MODEL])
    await bench.be_away(10)
    assert await registry.models() == []


async def test_a_worker_that_leaves_is_gone_at_once(bench: Bench) -> None:
    registry = Registry(bench.redis)
    await registry.announce(worker("w1"), [])
    await registry.leave("w1")
    assert await registry.workers() == []


async def test_a_server_that_is_away_is_unavailable() -> None:
    async with connect("redis://127.0.0.1:1/0") as redis:
        with pytest.raises(Unavailable):
            await Registry(redis).models()
