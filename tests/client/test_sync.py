"""The synchronous client: the asynchronous one, method for method."""

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import millrace
from millrace import AsyncClient, Client
from millrace.v1.job_service_pb2 import Job
from services.frontend.server import Frontend
from tests.client.mirror import Mirror, entry, mirroring
from tests.eventually import eventually
from tests.frontend.playing import Worker
from tests.processes import Service

N = np.array([[1, 2]], np.int32)
X = np.array([[0.5, -1.0]], np.float32)


def public(kind: type) -> dict[str, Callable[..., Any]]:
    return {name: method for name, method in vars(kind).items() if callable(method) and not name.startswith("_")}


def test_both_clients_have_the_same_methods() -> None:
    assert public(Client).keys() - {"close"} == public(AsyncClient).keys()


@pytest.mark.parametrize("name", ["__init__", *public(AsyncClient)])
def test_both_clients_methods_have_the_same_parameters_and_documentation(name: str) -> None:
    here, there = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(here).parameters == inspect.signature(there).parameters
    assert here.__doc__ == there.__doc__


@pytest.mark.parametrize("name", list(public(AsyncClient)))
def test_what_one_awaits_the_other_returns(name: str) -> None:
    names = {"npt": np.typing, "Any": Any, "Mapping": dict}
    here, there = (get_type_hints(getattr(kind, name), localns=names)["return"] for kind in (Client, AsyncClient))
    if get_origin(there) is AsyncGenerator:
        (item, _), (its_item, *_) = get_args(there), get_args(here)
        assert (item, inspect.isgeneratorfunction(getattr(Client, name))) == (its_item, True)
    else:
        assert here == there


@pytest.fixture
def sync(served: Frontend) -> Iterator[Client]:
    with Client(served.grpc_address, retry_s=5) as opened:
        yield opened


async def test_a_stream_is_iterated(sync: Client, worker: Worker) -> None:
    reading = asyncio.create_task(asyncio.to_thread(lambda: [delta.text for delta in sync.generate("echo", "hello")]))
    held = await worker.take()
    await held.emit("one")
    await held.emit("two", last=True)
    assert await reading == ["one", "two"]


async def test_leaving_a_stream_cancels_its_job(sync: Client, worker: Worker) -> None:
    def first() -> str:
        for delta in sync.generate("echo", "hello"):
            return delta.text
        raise AssertionError("no delta")

    reading = asyncio.create_task(asyncio.to_thread(first))
    held = await worker.take()
    await held.emit("one")
    assert await reading == "one"
    assert (await worker.ending(held.lease.ref)).reason == "CANCELLED"


async def test_jobs_are_submitted_watched_described_and_cancelled(sync: Client, worker: Worker) -> None:
    def use() -> None:
        job = sync.submit("echo", "hello", job_id="a")
        assert (job.job_id, sync.get("a").state) == ("a", Job.STATE_WAITING)
        assert sync.cancel("a").state == Job.STATE_CANCELLED
        with pytest.raises(millrace.JobFailed):
            list(sync.watch("a"))
        assert [model.name for model in sync.models()] == ["echo"]
        assert [one.worker_id for one in sync.workers()] == ["played-1"]
        with pytest.raises(millrace.NotFound):
            sync.get("nothing")

    await asyncio.to_thread(use)


async def test_tensors_go_through(sync: Client, redis_url: str) -> None:
    async with mirroring(redis_url) as mirror:
        assert (await asyncio.to_thread(sync.model_metadata, "mirror")).name == "mirror"
        calls = [
            asyncio.create_task(asyncio.to_thread(sync.infer, "mirror", {"x": X + number, "n": N}))
            for number in range(4)
        ]
        for _ in calls:
            await mirror.reflect()
        assert [(await call)["x"].tolist() for call in calls] == [(X + number).tolist() for number in range(4)]
        job = await asyncio.to_thread(sync.submit_infer, "mirror", {"x": X, "n": N})
        await mirror.reflect()
        assert (await asyncio.to_thread(sync.infer_result, job.job_id))["n"].tolist() == N.tolist()


async def test_a_whole_completion_and_closing_in_the_middle_of_one(served: Frontend, worker: Worker) -> None:
    client = Client(served.grpc_address)
    whole = asyncio.create_task(asyncio.to_thread(client.generate_text, "echo", "hello", max_tokens=3))
    held = await worker.take()
    assert held.request.stopping.max_tokens == 3
    await held.emit("all", last=True)
    assert (await whole).text == "all"
    whole = asyncio.create_task(asyncio.to_thread(client.generate_text, "echo", "hello"))
    held = await worker.take()
    await asyncio.to_thread(client.close)
    with pytest.raises(RuntimeError, match="closed during the call"):
        await whole
    assert (await worker.ending(held.lease.ref)).reason == "CANCELLED"
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.models()
    client.close()


@pytest.fixture
def process(redis_url: str) -> Iterator[Service]:
    """A frontend that goes on while this process's only thread waits, and a model that nobody computes."""

    over = threading.Event()

    async def announce() -> None:
        async with Worker(redis_url) as texts, Mirror(redis_url, entry()) as tensors:
            while not await asyncio.to_thread(over.wait, 1):
                await asyncio.gather(texts.announce(), tensors.announce())

    announcing = threading.Thread(target=asyncio.run, args=(announce(),))
    announcing.start()
    addresses = {"MILLRACE_GRPC_ADDRESS": "127.0.0.1:0", "MILLRACE_HTTP_ADDRESS": "127.0.0.1:0"}
    settings = addresses | {"MILLRACE_REDIS_URL": redis_url, "MILLRACE_DRAIN_S": "0"}
    try:
        with Service("services.frontend", settings) as service:
            yield service
    finally:
        over.set()
        announcing.join()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.generate_text("echo", "hello", job_id="a"),
        lambda client: next(client.generate("echo", "hello", job_id="a")),
        lambda client: client.infer("mirror", {"x": X, "n": N}),
    ],
    ids=["generate_text", "generate", "infer"],
)
def test_ctrl_c_in_a_call_cancels_it(process: Service, call: Callable[[Client], object]) -> None:
    def waiting() -> bool:
        return any(model.waiting_jobs for model in client.models())

    def press() -> None:
        deadline = time.monotonic() + 10
        while not waiting() and time.monotonic() < deadline:
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Client(process.ready["grpc"]) as client:
        pressing = threading.Thread(target=press)
        pressing.start()
        with pytest.raises(KeyboardInterrupt):
            call(client)
        pressing.join()
        asyncio.run(eventually(lambda: not waiting()))


def test_a_program_that_closes_nothing_ends_and_takes_its_jobs_along(process: Service) -> None:
    program = f"""
import contextlib, threading, millrace
client = millrace.Client({process.ready["grpc"]!r})
stream = client.generate("echo", "hello", job_id="a", resume_window_s=600)
def read():
    with contextlib.suppress(RuntimeError):
        list(stream)
threading.Thread(target=read, daemon=True).start()
while not any(model.waiting_jobs for model in client.models()):
    pass
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    with Client(process.ready["grpc"]) as client:
        assert client.get("a").state == Job.STATE_CANCELLED


def test_tensors_without_numpy_say_what_to_install() -> None:
    program = """
import sys
sys.modules["numpy"] = None
import millrace
with millrace.Client("127.0.0.1:1") as client:
    client.infer("mirror", {"x": [1.0]})
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert (
        "ImportError: tensors are numpy arrays, and numpy is missing: pip install 'millrace[tensors]'" in ended.stderr
    )
