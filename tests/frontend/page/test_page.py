"""The page's paths: who may ask them, and what they answer."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from html.parser import HTMLParser
from typing import Any

import httpx2
import pytest

from millrace.errors import Code
from millrace.queue import Lease, ModelEntry
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.tasks_pb2 import ClassifyRequest, ClassifyResponse, TranscribeRequest, TranscribeResponse
from services.frontend.page.feed import MOST_VIEWERS
from services.frontend.page.routes import FILES
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.openai.calling import DONE, TEXT, Reading, caller, emit, prompt
from tests.frontend.playing import Held, Worker, frontend
from tests.frontend.tensors import TensorWorker
from tests.processes import Valkey

OWN = {"millrace-page": "1"}
PICTURES = ModelEntry(name="pictures", version="2", task="image-classification", digest="", tasks=("classify",))
SPEECH = ModelEntry(name="speech", version="1", task="speech-recognition", digest="", tasks=("transcribe",))
FLEET, CLASSIFY, TRANSCRIBE, CANCEL = "/page/fleet", "/page/classify", "/page/transcribe", "/page/cancel"


@pytest.fixture
async def served(redis_url: str, worker: Worker) -> AsyncIterator[Frontend]:
    async with frontend(redis_url, openai=True, page=True, page_hosts=("fleet.example",), max_tensor_bytes=1000) as it:
        yield it


@pytest.fixture
async def http(served: Frontend) -> AsyncIterator[httpx2.AsyncClient]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=f"http://{served.http_address}", timeout=10.0, limits=limits) as client:
        yield client


@asynccontextmanager
async def looking(http: httpx2.AsyncClient) -> AsyncIterator[Reading]:
    async with http.stream("GET", FLEET, headers=OWN) as response:
        assert response.status_code == 200
        yield Reading(response)


def told(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def ended(served: Frontend, path: str, code: Code) -> float:
    """How many requests have ended so."""
    labels = {"method": path, "code": code.name}
    return served.metrics.registry.get_sample_value("millrace_frontend_calls_total", labels) or 0.0


class Links(HTMLParser):
    """Notes what a page refers to, and what stands in it that its own policy forbids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [given[name] or "" for name in ("src", "href") if name in given]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


@pytest.mark.parametrize("path", ["/", FLEET, "/page/page.js"])
async def test_there_is_no_page_where_it_is_not_switched_on(redis_url: str, path: str) -> None:
    async with frontend(redis_url, openai=True) as plain, caller(plain.http_address) as asked:
        assert (await asked.client.get(path, headers=OWN)).status_code == 404


async def test_every_file_comes_with_a_policy_that_lets_nothing_foreign_in(http: httpx2.AsyncClient) -> None:
    for name, body in FILES.items():
        response = await http.get("/" if name == "page.html" else f"/page/{name}")
        assert response.content == body
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"


async def test_the_page_needs_nothing_but_its_own_files() -> None:
    page = Links(FILES["page.html"].decode())
    assert page.inline == []
    assert {link.removeprefix("/page/") for link in page.links} <= FILES.keys()
    scripts = {name: body.decode() for name, body in FILES.items() if name.endswith(".js")}
    imported = {link for text in scripts.values() for link in re.findall(r'from "/page/([a-z.]+)"', text)}
    assert imported == scripts.keys() - {"page.js"}
    assert not [name for name, text in scripts.items() if re.search("innerHTML|outerHTML|insertAdjacent|eval", text)]


async def test_the_fleet_is_told_once_a_second_the_same_to_all(http: httpx2.AsyncClient, worker: Worker) -> None:
    async with looking(http) as one, looking(http) as other:
        first, second = await one.next(), await one.next()
        assert [await other.next(), await other.next()] in ([first, second], [second, await one.next()])
    (model,) = first["models"]
    assert (model["name"], model["task"], model["ready_workers"], model["waiting"]) == ("echo", "text-generation", 1, 0)
    assert [entry["id"] for entry in first["workers"]] == ["played-1"]
    assert (first["num_workers"], first["ready_workers"], first["frontend"]["openai"]) == (1, 1, True)
    assert 900 <= second["at_ms"] - first["at_ms"] < 2000


async def test_what_waits_and_runs_is_told(http: httpx2.AsyncClient, worker: Worker) -> None:
    calls = [asyncio.create_task(http.post(TEXT, json=prompt())) for _ in range(3)]
    held = await worker.take()
    await eventually(lambda: _waiting(worker, 2))
    async with looking(http) as reading:
        model = (await reading.next())["models"][0]
    assert (model["waiting"], model["running"], model["wait_s"]) == (2, 1, None)
    for job in (held, *await worker.take_all(2)):
        await job.emit("done", last=True)
    await asyncio.gather(*calls)


async def _waiting(worker: Worker, jobs: int) -> bool:
    return (await worker.queue.load(worker.model))["jobs"] == jobs


async def test_so_many_may_look_and_who_leaves_makes_room(served: Frontend, http: httpx2.AsyncClient) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MOST_VIEWERS):
            await stack.enter_async_context(looking(http))
        refused = await http.get(FLEET, headers=OWN)
        assert told(refused) == (429, "too_many_viewers")
        assert refused.headers["retry-after"] == "5"
    await eventually(lambda: ended(served, f"GET {FLEET}", Code.CANCELLED) == MOST_VIEWERS)
    async with looking(http) as reading:
        assert (await reading.next())["num_models"] == 1


async def test_the_last_that_is_told_is_that_the_frontend_drains(
    served: Frontend, http: httpx2.AsyncClient, worker: Worker
) -> None:
    generating = asyncio.create_task(http.post(TEXT, json=prompt()))
    held = await worker.take()
    async with looking(http) as reading:
        await reading.next()
        served.stop()
        assert (await reading.all())[-1]["frontend"]["draining"]
    await held.emit("done", last=True)
    await asyncio.gather(generating, return_exceptions=True)


async def test_a_queue_that_is_away_is_told_as_the_problem() -> None:
    with Valkey() as valkey:
        async with frontend(valkey.url, page=True) as served, caller(served.http_address) as asked:
            async with looking(asked.client) as reading:
                assert "problem" not in await reading.next()
                await asyncio.to_thread(valkey.kill)

                async def problem() -> Any:
                    return (await reading.next()).get("problem")

                assert "not reachable" in await eventually(problem)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        OWN | {"origin": "https://evil.example"},
        OWN | {"origin": "null"},
        OWN | {"sec-fetch-site": "cross-site"},
        OWN | {"sec-fetch-site": "same-site"},
        OWN | {"host": "evil.example:8002", "origin": "http://evil.example:8002"},
    ],
)
async def test_only_the_page_itself_may_ask(http: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    for method, path in (("GET", FLEET), ("POST", CLASSIFY), ("POST", TRANSCRIBE), ("POST", CANCEL)):
        response = await http.request(method, path, headers=headers)
        assert told(response) == (403, "foreign_page")
        assert "access-control-allow-origin" not in response.headers
        assert "content-security-policy" in response.headers
    assert (await http.request("OPTIONS", CLASSIFY, headers=headers)).status_code in (403, 405)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8002", 200),
        ("[::1]:8002", 200),
        ("10.1.2.3", 200),
        ("FLEET.example", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
    ],
)
async def test_it_is_served_under_its_own_names(http: httpx2.AsyncClient, host: str, status: int) -> None:
    own = OWN | {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    assert (await http.get("/", headers={"host": host})).status_code == status
    assert (await http.post(CANCEL, params={"job": "none"}, headers=own)).status_code == (404 if status == 200 else 403)


@pytest.mark.parametrize(
    ("query", "body", "refusal"),
    [
        ({"model": "nothing"}, b"\x89PNG", (404, "model_not_found")),
        ({}, b"\x89PNG", (400, "invalid_request")),
        ({"model": "echo"}, b"", (400, "invalid_request")),
        ({"model": "echo"}, b"x" * 1001, (400, "invalid_request")),
        ({"model": "echo", "input": "smell"}, b"x", (400, "invalid_request")),
        ({"model": "echo", "input": "text"}, b"\xff", (400, "invalid_request")),
        ({"model": "echo"}, b"\x89PNG", (400, "task_unimplemented")),
    ],
)
async def test_what_cannot_be_classified_is_refused_in_words(
    http: httpx2.AsyncClient, query: dict[str, str], body: bytes, refusal: tuple[int, str]
) -> None:
    response = await http.post(CLASSIFY, params=query, content=body, headers=OWN)
    assert told(response) == refusal
    assert len(response.json()["error"]["message"]) > 10


async def test_a_picture_becomes_labels(redis_url: str, http: httpx2.AsyncClient) -> None:
    async with TensorWorker(redis_url, PICTURES) as worker:
        asking = asyncio.create_task(
            http.post(CLASSIFY, params={"model": "pictures/2"}, content=b"\x89PNG", headers=OWN)
        )
        held, payload = await take(worker)
        request = ClassifyRequest.FromString(payload)
        assert (request.model_version, request.image, request.top_k) == ("2", b"\x89PNG", 10)
        labels = [ClassifyResponse.Label(name="<b>cat", score=0.75), ClassifyResponse.Label(name="dog", score=0.25)]
        await give(worker, held, ClassifyResponse(labels=labels), last=True)
        answer = await asking
    assert answer.json() == {"labels": [{"name": "<b>cat", "score": 0.75}, {"name": "dog", "score": 0.25}]}
    assert answer.headers["millrace-job-id"] == held.lease.ref.job_id


async def test_what_is_said_comes_piece_by_piece(redis_url: str, http: httpx2.AsyncClient) -> None:
    query = {"model": "speech"}
    async with TensorWorker(redis_url, SPEECH) as worker:
        taking = asyncio.create_task(_begin_to_write(worker))
        async with http.stream("POST", TRANSCRIBE, params=query, content=b"RIFF", headers=OWN) as response:
            reading, (held, payload) = Reading(response), await taking
            assert await reading.next() == {"text": "well,"}
            await give(worker, held, TranscribeResponse(text=" yes"), last=True)
            assert await reading.all() == [{"text": " yes"}, DONE]
    assert TranscribeRequest.FromString(payload).audio == b"RIFF"


async def test_who_leaves_has_nothing_classified(redis_url: str, http: httpx2.AsyncClient) -> None:
    async with TensorWorker(redis_url, PICTURES) as worker:
        asking = asyncio.create_task(http.post(CLASSIFY, params={"model": "pictures"}, content=b"\x89PNG", headers=OWN))
        held, _ = await take(worker)
        asking.cancel()

        async def forgotten() -> bool:
            return await worker.queue.inspect(held.lease.ref) is None

        await eventually(forgotten)


async def _begin_to_write(worker: Worker) -> tuple[Held, bytes]:
    held, payload = await take(worker)
    await give(worker, held, TranscribeResponse(text="well,"))
    return held, payload


async def give(worker: Worker, held: Held, message: Any, *, last: bool = False) -> None:
    """A result of any task."""
    await emit(worker, held, message, last=last)


async def take(worker: Worker) -> tuple[Held, bytes]:
    """The next job that waits, whatever its task, and its request."""
    numbers = itertools.count(1)

    async def taken() -> Lease | None:
        found = await worker.queue.take(worker.model, "played", next(numbers), jobs=1, cost=1e9, alone=True)
        return next(iter(found.leases), None)

    lease = await eventually(taken)
    payload = lease.payload or await worker.queue.payload(lease.ref, lease.fingerprint)
    return Held(worker.queue, lease, GenerateRequest()), payload or b""


async def test_a_stream_that_is_stopped_ends_its_job_at_once(http: httpx2.AsyncClient, worker: Worker) -> None:
    async with caller(str(http.base_url.netloc, "ascii")) as asked:
        taking = asyncio.create_task(_begin(worker))
        async with asked.stream(TEXT, prompt(), millrace_job_id="mine"):
            held = await taking
        response = await http.post(CANCEL, params={"job": "mine"}, headers=OWN)
    assert response.json() == {"job_id": "mine"}
    assert (await worker.ending(held.lease.ref, within_s=1.0)).code is Code.CANCELLED


async def _begin(worker: Worker) -> Any:
    held = await worker.take()
    await held.emit("one")
    return held


async def test_a_snapshot_is_one_line_of_json_whatever_stands_in_it(http: httpx2.AsyncClient) -> None:
    async with looking(http) as reading:
        await reading.next()
    (line,) = [line for line in reading.raw.decode().splitlines() if line]
    assert json.loads(line.removeprefix("data: "))["num_models"] == 1
