"""OpenAI's API, answered whole: from HTTP to the worker's request, and back."""

import asyncio
from typing import Any

import pytest

from millrace.errors import Code
from millrace.queue import Ending
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.openai.calling import CHAT, TEXT, Caller, caller, chat, error, prompt
from tests.frontend.playing import Held, Worker, frontend


async def is_stopped(worker: Worker, held: Held) -> None:
    """Nobody wants the job any more, and nobody can ask for it."""

    async def gone() -> bool:
        return await worker.queue.inspect(held.lease.ref) is None

    await eventually(gone)


async def test_a_completion_is_one_object_made_of_all_results(http: Caller, worker: Worker) -> None:
    asking = asyncio.create_task(http.post(TEXT, prompt("hello", max_tokens=7)))
    held = await worker.take()
    await held.emit("one ")
    await held.emit("two", last=True)
    response = await asking
    answer = response.json()
    job_id = held.lease.ref.job_id
    assert response.status_code == 200
    assert response.headers["millrace-job-id"] == job_id
    assert (held.request.text, held.request.stopping.max_tokens) == ("hello", 7)
    assert answer["choices"] == [{"index": 0, "text": "one two", "logprobs": None, "finish_reason": "stop"}]
    assert (answer["id"], answer["object"], answer["model"]) == (f"cmpl-{job_id}", "text_completion", "echo")
    assert (answer["usage"]["completion_tokens"], answer["usage"]["total_tokens"]) == (2, 2)


async def test_a_chat_is_a_conversation_for_the_worker(http: Caller, worker: Worker) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "be short"}, {"role": "user", "content": parts}]
    asking = asyncio.create_task(http.post(CHAT, chat(messages=messages)))
    held = await worker.take()
    await held.emit("hi", last=True)
    answer = (await asking).json()
    told = [(message.role, message.content) for message in held.request.conversation.messages]
    assert told == [("system", "be short"), ("user", "a\nb")]
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hi", "refusal": None}


async def test_each_prompt_is_a_job_and_the_choices_keep_their_order(http: Caller, worker: Worker) -> None:
    asking = asyncio.create_task(http.post(TEXT, prompt(["a", "b"]), millrace_job_id="many"))  # type: ignore[arg-type]
    held = await worker.take_all(2)
    for one in sorted(held, key=lambda job: job.request.text, reverse=True):
        await one.emit(one.request.text * 2, last=True)
    answer = (await asking).json()
    assert [choice["text"] for choice in answer["choices"]] == ["aa", "bb"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["id"] == "cmpl-many"
    assert {job.lease.ref.job_id for job in held} == {"many-0", "many-1"}


async def test_an_echo_stands_before_the_completion(http: Caller, worker: Worker) -> None:
    asking = asyncio.create_task(http.post(TEXT, prompt("hello", echo=True)))
    await (await worker.take()).emit(" you", last=True)
    assert (await asking).json()["choices"][0]["text"] == "hello you"


async def test_a_named_request_that_is_repeated_attaches_to_the_first(http: Caller, worker: Worker) -> None:
    first = asyncio.create_task(http.post(TEXT, prompt(), millrace_job_id="a"))
    await (await worker.take()).emit("once", last=True)
    again = await http.post(TEXT, prompt(), millrace_job_id="a")
    assert again.content == (await first).content
    other = await http.post(TEXT, prompt("another"), millrace_job_id="a")
    assert (other.status_code, error(other)["code"]) == (409, "job_id_reused")
    assert other.headers["x-should-retry"] == "false"


async def test_the_first_failure_of_several_prompts_is_the_answer_and_stops_the_others(
    http: Caller, worker: Worker
) -> None:
    asking = asyncio.create_task(http.post(TEXT, prompt(["a", "b"])))  # type: ignore[arg-type]
    failing, other = await worker.take_all(2)
    await failing.end(Ending(code=Code.INTERNAL, reason="POISON_JOB", message="it broke"))
    response = await asking
    assert (response.status_code, error(response)["message"]) == (500, "it broke")
    await is_stopped(worker, other)


async def test_a_caller_who_leaves_stops_the_job(http: Caller, worker: Worker) -> None:
    asking = asyncio.create_task(http.post(TEXT, prompt()))
    held = await worker.take()
    asking.cancel()
    await is_stopped(worker, held)


async def test_tenants_and_request_ids_are_taken_from_headers(http: Caller, worker: Worker) -> None:
    asking = asyncio.create_task(http.post(TEXT, prompt(), millrace_tenant="blue", x_request_id="r-17"))
    held = await worker.take()
    await held.emit("x", last=True)
    assert held.lease.ref.tenant == "blue"
    assert (await asking).headers["x-request-id"] == "r-17"
    refused = await http.post(TEXT, prompt(), millrace_tenant="no tenant", x_request_id="r-18")
    assert (refused.status_code, error(refused)["param"]) == (400, "millrace-tenant")
    assert refused.headers["x-request-id"] == "r-18"


async def test_an_ending_of_the_job_is_a_status(http: Caller, worker: Worker) -> None:
    asking = asyncio.create_task(http.post(TEXT, prompt()))
    held = await worker.take()
    await held.end(Ending(code=Code.INVALID_ARGUMENT, reason="TOO_LONG", message="is too long", field="text"))
    response = await asking
    assert response.status_code == 400
    assert error(response) == {
        "message": "prompt: is too long",
        "type": "invalid_request_error",
        "param": "prompt",
        "code": "too_long",
    }


async def test_an_unknown_model_is_not_found(http: Caller) -> None:
    response = await http.post(TEXT, prompt(model="nobody"))
    told = error(response)
    assert (response.status_code, told["code"], told["param"]) == (404, "model_not_found", "model")


async def test_a_version_is_named_behind_the_models_name(http: Caller, worker: Worker) -> None:
    asking = asyncio.create_task(http.post(TEXT, prompt(model="echo/1")))
    await (await worker.take()).emit("x", last=True)
    assert (await asking).status_code == 200
    assert (await http.post(TEXT, prompt(model="echo/2"))).status_code == 404


async def test_a_full_queue_says_when_to_come_back(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, openai=True, max_waiting_jobs=1) as served,
        caller(served.http_address) as http,
    ):
        first = asyncio.create_task(http.post(TEXT, prompt()))
        await eventually(lambda: len(served.interest) == 1)
        held = await worker.take()
        waiting = asyncio.create_task(http.post(TEXT, prompt()))

        async def waits() -> bool:
            return (await worker.queue.load(worker.model))["jobs"] == 1

        await eventually(waits)
        response = await http.post(TEXT, prompt())
        assert response.status_code == 429
        assert error(response)["type"] == "rate_limit_error"
        assert int(response.headers["retry-after"]) >= 1
        assert float(response.headers["retry-after-ms"]) > 0
        assert response.headers["x-should-retry"] == "true"
        await held.emit("x", last=True)
        assert (await first).status_code == 200
        waiting.cancel()


async def test_a_model_without_a_worker_is_unavailable_and_the_connection_is_let_go(
    redis_url: str, worker: Worker
) -> None:
    await worker.announce("draining")
    async with frontend(redis_url, openai=True) as served, caller(served.http_address) as http:
        response = await http.post(TEXT, prompt())
        assert (response.status_code, error(response)["code"]) == (503, "no_worker")
        assert (response.headers["retry-after"], response.headers["connection"]) == ("1", "close")


async def test_models_are_listed_and_shown(http: Caller) -> None:
    listed = (await http.client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["echo"]
    assert (await http.client.get("/v1/models/echo")).json() == listed["data"][0]
    assert listed["data"][0]["max_model_len"] == 512
    unknown = await http.client.get("/v1/models/nobody")
    assert (unknown.status_code, error(unknown)["code"]) == (404, "model_not_found")


async def test_paths_that_are_not_there_are_answered_in_kind(http: Caller) -> None:
    assert error(await http.client.get("/v1/nothing"))["type"] == "invalid_request_error"
    assert (await http.client.delete("/v1/models")).status_code == 405


async def test_calls_are_counted_by_path_and_code(http: Caller, served: Frontend) -> None:
    await http.post(TEXT, prompt(model="nobody"))
    calls = served.metrics.calls.labels("POST /v1/completions", "NOT_FOUND")
    await eventually(lambda: calls._value.get() == 1)


async def test_pages_of_the_origins_that_are_set_may_call(redis_url: str, worker: Worker) -> None:
    origins = ("https://a.example",)
    async with (
        frontend(redis_url, openai=True, openai_cors_origins=origins) as served,
        caller(served.http_address) as http,
    ):
        allowed = await http.client.get("/v1/models", headers={"origin": "https://a.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        other = await http.client.get("/v1/models", headers={"origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_it_is_not_there_unless_it_is_switched_on(redis_url: str, worker: Worker) -> None:
    async with frontend(redis_url) as served, caller(served.http_address) as http:
        assert (await http.client.get("/v1/models")).status_code == 404
        assert (await http.client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a":' + b"[" * 5000, b"{}" + b"," * 600_000]
)
async def test_a_body_that_is_no_object_is_refused(http: Caller, body: bytes) -> None:
    response = await http.client.post(TEXT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error(response)["type"] == "invalid_request_error"


async def test_a_body_that_is_too_large_is_refused_while_it_is_read(redis_url: str, worker: Worker) -> None:
    async def parts() -> Any:
        for _ in range(100):
            yield b" " * 1000

    async with (
        frontend(redis_url, openai=True, max_request_bytes=5000) as served,
        caller(served.http_address) as http,
    ):
        response = await http.client.post(TEXT, content=parts(), headers={"content-type": "application/json"})
        assert response.status_code == 400
        assert "5000 bytes" in error(response)["message"]


async def test_a_body_that_does_not_come_is_refused_and_the_connection_ended(redis_url: str, worker: Worker) -> None:
    async with frontend(redis_url, openai=True, slow_reader_s=0.1) as served:
        reader, writer = await asyncio.open_connection(*served.http_address.rsplit(":", 1))
        writer.write(f"POST {TEXT} HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{{".encode())
        answer = await reader.read()
        assert b"400 Bad Request" in answer
        assert b"in time" in answer
        writer.close()
