"""The model repository's calls, with played workers that say what they have carried out."""

import asyncio
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from millrace.oip.inference_pb2 import (
    ModelReadyRequest,
    ModelRepositoryParameter,
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.queue import Carried, Commands, Indexed, ModelState, Registry, Verb, WorkerEntry
from millrace.queue.connection import Redis
from tests.eventually import eventually
from tests.frontend.playing import Worker, frontend, reason, violated
from tests.frontend.tensors import Inference, infer

LOADING, READY, UNLOADING, UNAVAILABLE = ModelState
ENTRY = WorkerEntry(worker_id="a", device="CPU", execution_provider="CPUExecutionProvider", state="ready")


@pytest.fixture
def inference(channel: grpc.aio.Channel) -> Inference:
    return GRPCInferenceServiceStub(channel)


@pytest.fixture
def commands(worker: Worker) -> Commands:
    return Commands(worker.redis)


def one(name: str, version: str, state: ModelState, why: str = "") -> Indexed:
    return Indexed(name=name, version=version, state=state, reason=why)


async def announce(redis: Redis, worker_id: str, *index: Indexed, **fields: object) -> WorkerEntry:
    entry = replace(ENTRY, worker_id=worker_id, index=index, **fields)  # type: ignore[arg-type]
    await Registry(redis).announce(entry, [])
    return entry


async def commanded(commands: Commands, name: str, repository: str = "models") -> tuple[Verb, int]:
    """The command that was given about a model, once there is one."""

    async def given() -> tuple[Verb, int] | None:
        command = (await commands.read(repository)).get(name)
        return (command.verb, command.serial) if command else None

    return await eventually(given)


async def carry_out(redis: Redis, entry: WorkerEntry, name: str, serial: int, failure: str = "") -> WorkerEntry:
    done = replace(entry, carried=(*entry.carried, Carried(name=name, serial=serial, failure=failure)))
    await Registry(redis).announce(done, [])
    return done


async def table(inference: Inference, **fields: object) -> list[tuple[str, str, str, str]]:
    answer = await inference.RepositoryIndex(RepositoryIndexRequest(**fields))  # type: ignore[arg-type]
    return [(m.name, m.version, m.state, m.reason) for m in answer.models]


async def test_the_index_shows_of_each_version_the_most_hopeful_state(inference: Inference, worker: Worker) -> None:
    await announce(worker.redis, "a", one("m", "1", READY), one("m", "2", UNAVAILABLE, "torn"), one("n", "1", LOADING))
    await announce(worker.redis, "b", one("m", "1", UNAVAILABLE, "no room"), one("m", "2", UNAVAILABLE, "torn"))
    shown = [
        ("echo", "1", "READY", ""),
        ("m", "1", "READY", "b: no room"),
        ("m", "2", "UNAVAILABLE", "torn"),
        ("n", "1", "LOADING", ""),
    ]
    assert await table(inference) == shown
    assert await table(inference, ready=True) == shown[:2]


async def test_the_index_of_one_repository_is_that_of_its_workers(inference: Inference, worker: Worker) -> None:
    await announce(worker.redis, "a", one("m", "1", READY), repository="other")
    assert await table(inference, repository_name="other") == [("m", "1", "READY", "")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await table(inference, repository_name="nowhere")
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "REPOSITORY_UNKNOWN")


@pytest.mark.parametrize("verb", [Verb.LOAD, Verb.UNLOAD])
async def test_a_command_is_answered_when_every_worker_has_carried_it_out(
    inference: Inference, worker: Worker, commands: Commands, verb: Verb
) -> None:
    workers = [await announce(worker.redis, name, one("m", "1", READY), repository="r") for name in ("a", "b")]
    call = asyncio.ensure_future(command(inference, verb, "m"))
    given, serial = await commanded(commands, "m", "r")
    assert given is verb
    await carry_out(worker.redis, workers[0], "m", serial)
    await asyncio.wait([call], timeout=0.4)
    assert not call.done()
    await carry_out(worker.redis, workers[1], "m", serial)
    await call
    assert "m" not in await commands.read("models")


async def test_what_a_worker_could_not_do_is_told_with_its_name(
    inference: Inference, worker: Worker, commands: Commands
) -> None:
    workers = [await announce(worker.redis, name, one("m", "1", READY), repository="r") for name in ("a", "b")]
    call = asyncio.ensure_future(command(inference, Verb.LOAD, "m"))
    _, serial = await commanded(commands, "m", "r")
    await carry_out(worker.redis, workers[0], "m", serial)
    await carry_out(worker.redis, workers[1], "m", serial, "m/1: no room")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
    assert caught.value.details() == "b: m/1: no room"


async def test_a_worker_that_dies_meanwhile_is_not_waited_for(
    inference: Inference, worker: Worker, commands: Commands
) -> None:
    workers = [await announce(worker.redis, name, one("m", "1", READY), repository="r") for name in ("a", "b")]
    call = asyncio.ensure_future(command(inference, Verb.LOAD, "m"))
    _, serial = await commanded(commands, "m", "r")
    await carry_out(worker.redis, workers[0], "m", serial)
    await Registry(worker.redis).leave("b")
    await call


async def test_the_last_worker_that_dies_meanwhile_leaves_the_command_standing(
    inference: Inference, worker: Worker, commands: Commands
) -> None:
    await announce(worker.redis, "a", one("m", "1", READY), repository="r")
    call = asyncio.ensure_future(command(inference, Verb.LOAD, "m"))
    await commanded(commands, "m", "r")
    await Registry(worker.redis).leave("a")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert (await commanded(commands, "m", "r"))[0] is Verb.LOAD


async def test_a_deadline_tells_who_is_still_at_it(inference: Inference, worker: Worker) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.RepositoryModelLoad(RepositoryModelLoadRequest(model_name="echo"), timeout=1.0)
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "STILL_AT_IT")
    assert "played-1" in (caught.value.details() or "")


async def test_a_model_that_no_worker_knows_is_looked_for_again(
    inference: Inference, worker: Worker, commands: Commands
) -> None:
    await Registry(worker.redis).leave("played-1")
    entry = await announce(worker.redis, "a")
    call = asyncio.ensure_future(command(inference, Verb.LOAD, "m"))
    verb, serial = await commanded(commands, "")
    assert verb is Verb.LOOK
    entry = await carry_out(worker.redis, replace(entry, index=(one("m", "1", UNAVAILABLE),)), "", serial)
    verb, serial = await commanded(commands, "m")
    await carry_out(worker.redis, entry, "m", serial)
    await call


async def test_a_model_that_is_not_there_then_is_not_found_and_leaves_no_command(
    inference: Inference, worker: Worker, commands: Commands
) -> None:
    await Registry(worker.redis).leave("played-1")
    entry = await announce(worker.redis, "a")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await command(inference, Verb.UNLOAD, "m")
    assert reason(caught.value) == "MODEL_UNKNOWN"
    call = asyncio.ensure_future(command(inference, Verb.LOAD, "m"))
    await carry_out(worker.redis, entry, "", (await commanded(commands, ""))[1])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN")
    assert "m" not in await commands.read("models")


async def test_without_a_worker_nothing_can_be_commanded(inference: Inference, worker: Worker) -> None:
    await worker.announce("draining")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await command(inference, Verb.LOAD, "echo")
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "../m"])
async def test_a_name_that_no_model_can_have_is_refused(inference: Inference, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await command(inference, Verb.LOAD, name)
    assert violated(caught.value) == ["model_name"]


async def test_parameters_that_would_change_a_model_are_refused(inference: Inference) -> None:
    parameters = {name: ModelRepositoryParameter(string_param="{}") for name in ("config", "file:1/model.onnx")}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.RepositoryModelLoad(RepositoryModelLoadRequest(model_name="echo", parameters=parameters))
    assert violated(caught.value) == ["parameters[config]", "parameters[file:1/model.onnx]"]


async def test_a_model_that_was_unloaded_is_forgotten_and_has_no_dependents(
    inference: Inference, worker: Worker, commands: Commands
) -> None:
    entry = await announce(worker.redis, "played-1", one("echo", "1", READY))
    parameters = {"unload_dependents": ModelRepositoryParameter(bool_param=True)}
    request = RepositoryModelUnloadRequest(model_name="echo", parameters=parameters)

    async def unload() -> None:
        await inference.RepositoryModelUnload(request)

    call = asyncio.create_task(unload())
    await carry_out(worker.redis, replace(entry, index=()), "echo", (await commanded(commands, "echo"))[1])
    await call
    assert await worker.registry.models() == []


async def test_a_model_that_is_being_unloaded_takes_no_new_jobs_unless_another_worker_has_it(
    inference: Inference, worker: Worker
) -> None:
    async def ready() -> bool:
        return (await inference.ModelReady(ModelReadyRequest(name="echo"))).ready

    await announce(worker.redis, "played-1", one("echo", "1", UNLOADING))
    assert not await ready()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelInfer(infer(model_name="echo"))
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNLOADING")
    await announce(worker.redis, "a", one("echo", "1", READY))
    assert await ready()


async def command(inference: Inference, verb: Verb, name: str) -> None:
    if verb is Verb.LOAD:
        await inference.RepositoryModelLoad(RepositoryModelLoadRequest(model_name=name))
    else:
        await inference.RepositoryModelUnload(RepositoryModelUnloadRequest(model_name=name))


async def test_a_frontend_may_be_told_to_command_nothing(redis_url: str, worker: Worker) -> None:
    async with frontend(redis_url, model_control=False) as served, grpc.aio.insecure_channel(served.grpc_address) as to:
        inference: Inference = GRPCInferenceServiceStub(to)
        for call in (
            inference.RepositoryModelLoad(RepositoryModelLoadRequest(model_name="echo")),
            inference.RepositoryModelUnload(RepositoryModelUnloadRequest(model_name="echo")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert (caught.value.code(), reason(caught.value)) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "MODEL_CONTROL_OFF",
            )
        assert (await inference.RepositoryIndex(RepositoryIndexRequest())).models
    assert await Commands(worker.redis).read("models") == {}
