"""Workers are known as long as they announce themselves, models for a week after."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from millrace.errors import Unavailable
from millrace.queue import Carried, Indexed, ModelEntry, ModelState, Registry, WorkerEntry, connect, keys
from millrace.queue.registry import MODEL_MS, WORKER_MS
from tests.queue.bench import Bench

MODEL = ModelEntry(name="story", version="1", task="generate", digest="0" * 64)


def worker(worker_id: str) -> WorkerEntry:
    return WorkerEntry(
        worker_id=worker_id,
        device="cpu",
        execution_provider="CPU",
        state="ready",
        index=(
            Indexed(name="story", version="1", state=ModelState.READY),
            Indexed(name="story", version="2", state=ModelState.UNAVAILABLE, reason="model.yaml is missing"),
        ),
        carried=(Carried(name="story", serial=7, failure="story/2: model.yaml is missing"),),
    )


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


async def test_a_worker_is_ready_for_what_its_index_says_so_of() -> None:
    assert worker("w1").models == ("story/1",)


async def test_what_only_a_later_version_of_the_service_knows_is_left_out(bench: Bench) -> None:
    registry = Registry(bench.redis)
    await registry.announce(worker("w1"), [MODEL])
    for key, name in ((keys.WORKERS, "w1"), (keys.MODELS, "story/1")):
        stored: Any = await bench.redis.hget(key, name)
        await bench.redis.hset(key, name, stored.decode().removesuffix("}") + ',"later":[1]}')
    assert (await registry.workers(), await registry.models()) == ([worker("w1")], [MODEL])


@pytest.mark.parametrize("value", [b"", b"not a model", b"\xff\xff", b"{}", b"9999999999999 [", b"9999999999999 {}"])
async def test_an_entry_that_cannot_be_read_is_told_once_and_hides_no_other(bench: Bench, value: bytes) -> None:
    registry = Registry(bench.redis)
    await registry.announce(worker("w1"), [MODEL])
    with capture_logs() as said:
        for key in (keys.WORKERS, keys.MODELS):
            await bench.redis.hset(key, "a", value)
        for _ in range(3):
            assert (await registry.workers(), await registry.models()) == ([worker("w1")], [MODEL])
    assert [(line["event"], line["key"], line["field"]) for line in said] == [
        ("entry.unreadable", keys.WORKERS, "a"),
        ("entry.unreadable", keys.MODELS, "a"),
    ]


async def test_an_entry_without_a_lifetime_is_dropped_by_the_next_announcement(bench: Bench) -> None:
    await bench.redis.hset(keys.WORKERS, "a", b"not a worker")
    await Registry(bench.redis).announce(worker("w1"), [])
    assert await bench.redis.hkeys(keys.WORKERS) == [b"w1"]


async def test_a_model_that_was_unloaded_on_purpose_is_forgotten(bench: Bench) -> None:
    registry = Registry(bench.redis)
    await registry.announce(worker("w1"), [MODEL])
    await registry.forget([])
    await registry.forget([MODEL.model])
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
