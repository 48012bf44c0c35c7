"""Calls: their jobs' names, their errors, and scenarios that do not fit their task."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from millrace.errors import Code, JobFailed, NotFound, Unavailable
from millrace.load.asking.asker import RETRY_S, Asker
from millrace.load.scenario import Task
from millrace.queue import Ending, Verdict
from tests.eventually import eventually
from tests.frontend.playing import Held, Worker, frontend
from tests.load.asks import asked, complaint, scenario
from tests.load.faulty import PLANTS, Faulty, serving
from tests.processes import free_port


@pytest.mark.parametrize(
    ("task", "requests", "text"),
    [
        ("generate", {"rows": 3}, "requests.rows means nothing to generate: it is for infer"),
        ("infer", {"max_tokens": 3}, "requests.max_tokens means nothing to infer: it is for generate"),
        ("embed", {"files": ["a"]}, "requests.files means nothing to embed: it is for classify and transcribe"),
        ("transcribe", {"prompt": "a"}, "requests.prompt means nothing to transcribe"),
        ("generate", {"options": {"temprature": 1}}, "requests.options: unknown options: temprature"),
        ("generate", {"options": {"temperature": "hot"}}, "requests.options: "),
        ("generate", {"options": {"timeout_s": 1}}, "requests.options: unknown options: timeout_s"),
        ("generate", {"options": {"model_version": "1"}}, "requests.options: model_version is a setting"),
        ("generate", {"options": {"max_tokens": 1}, "max_tokens": 2}, "give it once"),
        ("generate", {"token_ids": (5, 5)}, "requests.token_ids: [5, 5] must rise"),
        ("generate", {"token_ids": (-1, 5)}, "requests.token_ids: [-1, 5] must rise"),
        ("generate", {"prompt": "a", "prompt_tokens": 3}, "give one of requests.prompt and requests.prompt_tokens"),
        (
            "generate",
            {"prompt_tokens": {"mean": 3, "least": 9, "most": 5}},
            "requests.prompt_tokens: least, 9, is",
        ),
        ("generate", {"prompts": "/nowhere/p.txt"}, "requests.prompts: /nowhere/p.txt: No such file"),
        ("embed", {"prompt": "a", "prompts": "b"}, "give requests.prompt or requests.prompts, not both"),
        ("transcribe", {"files": ["/nowhere/a.wav"]}, "requests.files: /nowhere/a.wav: No such file"),
        ("transcribe", {}, "requests.files is missing"),
    ],
)
async def test_what_does_not_fit_the_task_is_named(task: Task, requests: Any, text: str) -> None:
    assert text in await complaint(scenario(requests=requests), task)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"prompt": "a"}\n{"text": "b"}\n', "line 2: no object with a text"),
        ('{"prompt": "a"\n', "line 1: "),
        ("\n", "holds no prompts"),
    ],
)
async def test_prompts_that_are_wrong_are_named_with_their_line(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    assert text in await complaint(scenario(requests={"prompts": path}), "generate")


async def is_lost(held: Held) -> bool:
    return await held.emit("nobody wants this") is Verdict.LOST


async def test_jobs_have_names_only_where_somebody_needs_them() -> None:
    faulty = Faulty(PLANTS["none"])
    async with serving(faulty) as address:
        for resume, verify in ((False, False), (False, True), (True, False)):
            made = scenario(address=address, resume=resume, verify=verify)
            async with Asker(made, "generate", "salt") as asker:
                await asked(asker, 3)
    jobs = [request.job for request in faulty.requests]
    assert [job.job_id for job in jobs] == ["", "salt-3", "salt-3"]
    assert [job.resume_window.ToMilliseconds() for job in jobs] == [0, 0, 15_000]


async def test_a_refusal_is_an_error_of_the_tree(redis_url: str) -> None:
    async with (
        frontend(redis_url) as served,
        Asker(scenario("unknown", served.grpc_address), "generate", "salt") as asker,
    ):
        with pytest.raises(NotFound):
            await asked(asker)


async def test_a_service_that_is_away_is_unavailable_at_once() -> None:
    async with Asker(scenario(address=f"127.0.0.1:{free_port()}"), "generate", "salt") as asker:
        async with asyncio.timeout(RETRY_S / 3):
            with pytest.raises(Unavailable):
                await asked(asker)


@pytest.mark.parametrize("fields", [{}, {"verify": True}, {"resume": True}])
async def test_a_call_that_is_left_takes_its_job_along(redis_url: str, fields: Any) -> None:
    async with (
        Worker(redis_url) as worker,
        frontend(redis_url) as served,
        Asker(scenario("echo", served.grpc_address, **fields), "generate", "salt") as asker,
    ):
        asking = asyncio.ensure_future(asked(asker))
        held = await worker.take()
        await held.emit("a")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: is_lost(held))


async def test_a_job_that_fails_ends_with_its_own_error(redis_url: str) -> None:
    async with (
        Worker(redis_url) as worker,
        frontend(redis_url) as served,
        Asker(scenario("echo", served.grpc_address), "generate", "salt") as asker,
    ):
        asking = asyncio.ensure_future(asked(asker))
        held = await worker.take()
        await held.emit("a")
        await held.end(Ending(code=Code.INTERNAL, reason="MODEL_FAILED", message="no"))
        with pytest.raises(JobFailed) as caught:
            await asking
        assert (caught.value.code, caught.value.reason) == (Code.INTERNAL, "MODEL_FAILED")
