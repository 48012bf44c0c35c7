"""Models that come, change and go while a worker runs."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from millrace import AsyncClient
from millrace.client.results import Delta
from millrace.errors import NotFound
from millrace.queue import ModelState, Verb
from tests.eventually import eventually
from tests.processes import Service
from tests.stub_models import write_stub
from tests.worker.rig import WITHIN_S, Rig, Stream, factor, write

POOLS = ("asyncio", "engine")
"""Threads that the process keeps, a bounded number of them."""
LOADING, READY, UNLOADING, UNAVAILABLE = ModelState


@pytest.fixture
async def rig(redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    (tmp_path / "models").mkdir()
    async with AsyncExitStack() as stack:
        rig = Rig(redis_url, tmp_path / "models", stack)
        yield rig
        await stack.aclose()
        await rig.redis.aclose()


def policy(rig: Rig, text: str) -> None:
    (rig.models / "line" / "model.yaml").write_text(f"versions: {text}\n")


def write_cold(rig: Rig, version: str) -> None:
    """A version that is in order, and cannot be warmed."""
    folder = write(rig.models, 3, version, max_rows=4)
    with (folder / "model.yaml").open("a") as file:
        file.write("warmup: [{generate: {text: a}}]\n")


def write_slow(rig: Rig) -> None:
    """A model that takes two seconds to load."""
    folder = write_stub(rig.models, step_ms=20)
    with (folder / "model.yaml").open("a") as file:
        file.write("warmup: [{generate: {text: a, stopping: {max_tokens: 100}}}]\n")


async def reloading(rig: Rig, folder: Path, client: AsyncClient) -> AsyncIterator[Delta]:
    """A generation in whose midst its model is changed and loaded again."""
    command = None
    async for delta in client.generate("stub", "a", max_tokens=150):
        yield delta
        if command is None:
            text = (folder / "model.yaml").read_text()
            (folder / "model.yaml").write_text(text.replace("sleeps", "still sleeps"))
            command = asyncio.create_task(rig.command("stub", Verb.LOAD))
    assert command is not None
    assert await command == ""


async def test_a_worker_serves_what_its_setting_names_and_what_the_policy_chooses(rig: Rig) -> None:
    for version in ("1", "2", "10"):
        write(rig.models, 2, version)
    write(rig.models, 2, name="other")
    policy(rig, "{latest: 2}")
    await rig.start(load="li*")
    assert await rig.states() == {
        "line/1": UNAVAILABLE,
        "line/2": READY,
        "line/10": READY,
        "other/1": UNAVAILABLE,
    }
    assert await rig.reason("line/1") == "left out by the version policy"
    assert await rig.reason("other/1") == "not loaded"


async def test_a_worker_without_a_model_is_ready_where_models_come_by_command(rig: Rig) -> None:
    await rig.start(load="")
    write(rig.models, 3)
    assert await rig.command("line", Verb.LOAD) == ""
    async with rig.client() as client:
        assert await factor(client) == 3


async def test_a_worker_that_can_serve_nothing_of_all_ends(rig: Rig) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await rig.start()
    assert caught.group_contains(LookupError, match="can be served")


async def test_a_model_is_unloaded_and_loaded_by_command(rig: Rig) -> None:
    write(rig.models, 2)
    await rig.start()
    async with rig.client() as client:
        assert await factor(client) == 2
        assert await rig.command("line", Verb.UNLOAD) == ""
        assert (await rig.states(), await rig.reason("line/1")) == ({"line/1": UNAVAILABLE}, "unloaded")
        assert await rig.registry.models() == []
        with pytest.raises(NotFound):
            await factor(client)
        assert await rig.command("line", Verb.LOAD) == ""
        assert await factor(client) == 2


async def test_a_worker_that_starts_later_does_what_was_commanded_before(rig: Rig) -> None:
    write(rig.models, 2)
    write(rig.models, 2, name="other")
    serial = await rig.commands.give("models", "line", Verb.UNLOAD)
    await rig.start()
    assert await rig.states() == {"line/1": UNAVAILABLE, "other/1": READY}
    (entry,) = await rig.workers()
    assert [(one.name, one.serial, one.failure) for one in entry.carried] == [("line", serial, "")]


async def test_a_command_that_redis_has_lost_holds_on(rig: Rig) -> None:
    write(rig.models, 2)
    write(rig.models, 2, name="other")
    await rig.start()
    await rig.command("line", Verb.UNLOAD)
    await rig.redis.delete("mr:commands")
    await rig.command("other", Verb.UNLOAD)
    assert await rig.states() == {"line/1": UNAVAILABLE, "other/1": UNAVAILABLE}


async def test_a_model_that_is_loaded_as_it_is_stays_as_it_is(rig: Rig) -> None:
    write(rig.models, 2)
    worker = await rig.start()
    before = worker._hosting.hosts
    assert await rig.command("line", Verb.LOAD) == ""
    assert worker._hosting.hosts == before


async def test_commands_are_those_of_one_repository(rig: Rig) -> None:
    write(rig.models, 2)
    await rig.start(repository="here")
    await rig.commands.give("there", "line", Verb.UNLOAD)
    assert await rig.command("", Verb.LOOK, repository="here") == ""
    assert await rig.states() == {"line/1": READY}


async def test_a_model_that_is_not_there_is_a_failure_that_says_so(rig: Rig) -> None:
    write(rig.models, 2)
    await rig.start()
    assert "no model nothing" in await rig.command("nothing", Verb.LOAD)


@pytest.mark.timeout(120)
async def test_changed_files_are_reloaded_on_all_workers_without_a_failed_request(rig: Rig) -> None:
    write(rig.models, 2)
    await rig.start("w1")
    await rig.start("w2")
    async with rig.client() as client, Stream(lambda: factor(client)) as stream:
        for number in (3, 4):
            write(rig.models, number)
            await client.load_model("line", timeout_s=WITHIN_S)
            await stream.more()
            assert await factor(client) == number
    assert stream.failures == []
    assert set(stream.answers) == {2, 3, 4}


@pytest.mark.parametrize("unload_s", [0.0, 30.0])
async def test_a_stream_that_runs_while_its_model_is_reloaded_is_whole(rig: Rig, unload_s: float) -> None:
    """It ends on the old engine, or goes on, on the new one, behind what there is of it."""
    folder = write_stub(rig.models, step_ms=10)
    await rig.start(unload_s=unload_s)
    async with rig.client() as client:
        deltas = [delta async for delta in reloading(rig, folder, client)]
    assert sum(len(delta.token_ids) for delta in deltas) == 150
    assert [delta.offset for delta in deltas] == list(range(1, len(deltas) + 1))
    assert deltas[-1].message.timing.attempts == (2 if unload_s == 0 else 1)


@pytest.mark.timeout(120)
async def test_a_poll_switches_to_a_new_version_without_a_failed_request(rig: Rig) -> None:
    write(rig.models, 1, "1")
    policy(rig, "{latest: 1}")
    workers = ("w1", "w2")
    for worker in workers:
        await rig.start(worker, poll_s=0.2)
    async with rig.client() as client, Stream(lambda: factor(client)) as stream:
        write(rig.models, 2, "2")
        for worker in workers:
            await rig.until("line/2", READY, worker)
            await rig.until("line/1", UNAVAILABLE, worker)
        await stream.more()
        assert await factor(client) == 2
        with pytest.raises(NotFound):
            await factor(client, "1")
    assert stream.failures == []
    assert set(stream.answers) == {1, 2}
    assert [entry.version for entry in await rig.registry.models()] == ["2"]


@pytest.mark.timeout(120)
async def test_an_unload_does_what_was_accepted_and_refuses_what_comes_later(rig: Rig) -> None:
    write(rig.models, 2)
    await rig.start("w1")
    await rig.start("w2")
    async with rig.client() as client, Stream(lambda: factor(client), callers=8) as stream:
        await client.unload_model("line", timeout_s=WITHIN_S)
        assert {(one.state, one.reason) for one in await client.repository_index()} == {("UNAVAILABLE", "unloaded")}
        await stream.more()
    assert {type(error) for error in stream.failures} == {NotFound}
    assert set(stream.answers) == {2}
    assert [key async for key in rig.redis.scan_iter("mr:{line/1}:waiting:*")] == []
    assert [key async for key in rig.redis.scan_iter("mr:{line/1}:running")] == []


async def test_a_load_takes_back_an_unload_that_waits_for_its_last_jobs(rig: Rig) -> None:
    write(rig.models, 2)
    worker = await rig.start()
    before = worker._hosting.hosts
    await rig.commands.give("models", "line", Verb.UNLOAD)
    await rig.until("line/1", UNLOADING)
    assert await rig.command("line", Verb.LOAD) == ""
    assert await rig.states() == {"line/1": READY}
    assert worker._hosting.hosts == before


async def test_a_new_version_that_does_not_load_leaves_the_old_one_serving(rig: Rig) -> None:
    write(rig.models, 2, "1")
    policy(rig, "{latest: 1}")
    await rig.start()
    write_cold(rig, "2")
    failure = await rig.command("line", Verb.LOAD)
    assert "line/2" in failure
    assert await rig.states() == {"line/1": READY, "line/2": UNAVAILABLE}
    assert "warmup[0]" in await rig.reason("line/2")
    async with rig.client() as client:
        assert await factor(client) == 2


async def test_files_that_are_broken_in_their_place_leave_what_was_loaded_serving(rig: Rig) -> None:
    folder = write(rig.models, 2)
    await rig.start()
    (folder / "model.yaml").write_text("name: [")
    assert "line/1" in await rig.command("line", Verb.LOAD)
    assert await rig.states() == {"line/1": READY}
    assert (await rig.reason("line/1")).startswith("as its files were before: model.yaml")
    (folder / "model.yaml").unlink()
    write(rig.models, 3)
    assert await rig.command("line", Verb.LOAD) == ""
    assert await rig.reason("line/1") == ""


async def test_a_worker_that_starts_with_a_latest_version_that_does_not_load_serves_the_one_before(rig: Rig) -> None:
    write(rig.models, 2, "1")
    write_cold(rig, "2")
    policy(rig, "{latest: 1}")
    await rig.start()
    assert await rig.states() == {"line/1": READY, "line/2": UNAVAILABLE}


async def test_a_model_that_needs_more_memory_than_is_left_waits_until_another_gives_it_back(rig: Rig) -> None:
    folder = write(rig.models, 2)
    write(rig.models, 2, name="other")
    size = sum(path.stat().st_size for path in folder.iterdir())
    await rig.start(memory_bytes=size * 3 // 2)
    assert await rig.states() == {"line/1": READY, "other/1": UNAVAILABLE}
    assert "MILLRACE_MEMORY_BYTES" in await rig.reason("other/1")
    assert "MILLRACE_MEMORY_BYTES" in await rig.command("other", Verb.LOAD)
    await rig.command("line", Verb.UNLOAD)
    await rig.until("other/1", READY)


async def test_of_two_workers_each_says_what_it_could_not_do(rig: Rig, tmp_path: Path) -> None:
    write(rig.models, 2)
    other = tmp_path / "others" / "models"
    other.mkdir(parents=True)
    write(other, 2)
    await rig.start("w1")
    await rig.start("w2", models=str(other))
    (other / "line" / "1" / "model.onnx").write_bytes(b"torn")
    write(rig.models, 3)
    assert await rig.command("line", Verb.LOAD, "w1") == ""
    assert "line/1" in await rig.command("line", Verb.LOAD, "w2")
    assert (await rig.states("w1"), await rig.states("w2")) == ({"line/1": READY}, {"line/1": READY})


@pytest.mark.timeout(90)
async def test_a_worker_that_dies_while_it_loads_is_not_waited_for(rig: Rig) -> None:
    write_slow(rig)
    await rig.start(load="")
    environment = {"MILLRACE_REDIS_URL": rig.url, "MILLRACE_MODELS": str(rig.models), "MILLRACE_LOAD": ""}
    async with rig.client() as client, Service("services.worker", environment | {"MILLRACE_WORKER_ID": "w2"}) as dying:
        command = asyncio.create_task(client.load_model("stub", timeout_s=WITHIN_S))
        await rig.until("stub/1", LOADING, "w2")
        await asyncio.to_thread(dying.kill)
        await command
        assert await rig.states() == {"stub/1": READY}


async def test_a_folder_that_is_being_written_is_left_alone_until_it_is_the_same_twice(rig: Rig) -> None:
    write(rig.models, 2)
    worker = await rig.start()
    write(rig.models, 3, "2")
    await worker._contents.read(steady=True)
    assert [model.version for model in worker._contents.models("line")] == ["1"]
    await worker._contents.read(steady=True)
    assert [model.version for model in worker._contents.models("line")] == ["1", "2"]


async def test_a_repository_that_is_gone_all_at_once_unloads_nothing(rig: Rig) -> None:
    write(rig.models, 2)
    await rig.start(poll_s=0.1)
    rig.models.rename(rig.models.parent / "away")
    rig.models.mkdir()
    await rig.command("", Verb.LOOK)
    assert await rig.states() == {"line/1": READY}


@pytest.mark.timeout(120)
async def test_loading_and_unloading_leaves_nothing_behind(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.serving.lifecycle.QUIET_S", 0.05)
    names = ("line", "other", "third")
    for name in names:
        write(rig.models, 2, name=name)
    await rig.start()

    async def round_trip() -> tuple[int, int, int, int]:
        for verb in (Verb.UNLOAD, Verb.LOAD):
            assert await asyncio.gather(*(rig.command(name, verb) for name in names)) == [""] * len(names)
        connections = len(await rig.redis.client_list())
        threads = [one for one in threading.enumerate() if not one.name.startswith(POOLS)]
        return len(asyncio.all_tasks()), connections, len(threads), psutil.Process().memory_info().rss

    first = [await round_trip() for _ in range(2)][-1]
    last = [await round_trip() for _ in range(7)][-1]
    assert last[:3] == first[:3]
    assert last[3] - first[3] < 20 << 20


async def test_a_worker_that_is_stopped_while_it_unloads_stops(rig: Rig) -> None:
    write(rig.models, 2)
    worker = await rig.start()
    await rig.commands.give("models", "line", Verb.UNLOAD)
    await rig.until("line/1", UNLOADING)
    worker.stop()

    async def gone() -> bool:
        return not await rig.workers()

    await eventually(gone, WITHIN_S)


async def test_a_worker_that_is_stopped_while_it_loads_stops(rig: Rig) -> None:
    write_slow(rig)
    worker, task = rig.begin()
    await rig.until("stub/1", LOADING)
    worker.stop()
    await asyncio.wait_for(task, WITHIN_S)
    assert await rig.workers() == []
