"""The openai package, unchanged, against a fleet of real processes; and a stream whose frontend is killed."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bench.models import bert
from tests.contract.openai_calls import BURST
from tests.frontend.openai.calling import DONE, TEXT, Reading
from tests.models import write_model
from tests.processes import Service
from tests.proxy import Proxy
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, fleet
from tests.worker.tasks.texts import MAX_TOKENS, SHAPE, weights, write_text_model

ROOT = Path(__file__).parents[2]
CALLS_S = 100
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "
TOKENS = 60


def http(frontend: Service) -> str:
    return f"http://{frontend.ready['http']}"


async def calls(address: str) -> dict[str, Any]:
    command = (sys.executable, "-m", "tests.contract.openai_calls", address)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    async with asyncio.timeout(CALLS_S):
        output, _ = await process.communicate()
    assert process.returncode == 0
    seen: dict[str, Any] = json.loads(output)
    return seen


def write_models(repository: Path) -> None:
    shutil.copytree(ROOT / "models" / "pycode", repository / "pycode")
    write_model(repository, "tiny", chat_template=TEMPLATE)
    write_stub(repository, "slow", slots=1, step_ms=20)
    embedder = write_text_model(
        bert.build(SHAPE, weights(), pooled=False), "text-embedding", text={"max_tokens": MAX_TOKENS}
    )
    shutil.copytree(embedder.folder.parent, repository / "texts")


async def test_the_openai_package_generates_and_reads_our_errors(tmp_path: Path) -> None:
    write_models(tmp_path)
    async with fleet(tmp_path, frontends=1, workers=1, MILLRACE_OPENAI="1", MILLRACE_MAX_WAITING_JOBS="4") as running:
        seen = await calls(running.frontends[0].ready["http"])
    assert seen["models"] == ["pycode", "slow", "texts", "tiny"]
    check_completions(seen)
    assert seen["chat"]
    assert (seen["chat_streamed"], seen["roles"]) == (seen["chat"], ["assistant"])
    assert seen["chat_tokens"] == [2] * seen["chat_usage"]
    check_errors(seen)
    assert "" in seen["burst"]
    assert any(seen["burst"])
    assert all(int(seconds) >= 1 for seconds in seen["burst"] if seconds)
    assert seen["patient"] == [""] * BURST
    assert (seen["same_vectors"], seen["widths"]) == (True, [SHAPE.hidden] * 2)
    assert seen["embedded_tokens"] > 0


def check_completions(seen: dict[str, Any]) -> None:
    prompt = "def fibonacci("
    assert seen["text"] == prompt + seen["streamed"]
    assert (seen["finish"], seen["usage"], seen["stream_usage"]) == ("length", 8, 8)
    assert len(set(seen["lengths"])) == 1
    assert seen["tokens"].endswith(seen["streamed"])
    assert seen["offsets"] == sorted(seen["offsets"])
    assert [index for index, _ in seen["several"]] == [0, 1, 2, 3]
    assert seen["several"][0][1] == seen["streamed"]
    assert seen["several"][2][1] != seen["streamed"]


def check_errors(seen: dict[str, Any]) -> None:
    for name, kind, status, param, words in (
        ("unknown_model", "NotFoundError", 404, "model", "there is no model nothing"),
        ("unknown_shown", "NotFoundError", 404, "model", "there is no model nothing"),
        ("wrong_temperature", "BadRequestError", 400, "temperature", "must be 0 or more"),
        ("too_long", "BadRequestError", 400, "prompt", "the model takes at most"),
        ("no_template", "BadRequestError", 400, "messages", "template"),
        ("no_template_streamed", "BadRequestError", 400, "messages", "template"),
        ("tools", "BadRequestError", 400, "tools", "not supported"),
        ("not_embedding", "BadRequestError", 400, "model", "Generate"),
    ):
        *told, message = seen[name]
        assert told == [kind, status, param], name
        assert words in message


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Two frontends before one worker, whose model takes its time."""
    write_stub(tmp_path, step_ms=20)
    async with fleet(tmp_path, frontends=2, workers=1, MILLRACE_OPENAI="1") as running:
        yield running


async def test_a_stream_outlives_its_frontend_to_the_byte(pair: Fleet) -> None:
    """kill -9 in the middle: the same request with Last-Event-ID goes on elsewhere."""
    first, other = pair.frontends
    body = {"model": "stub", "prompt": "hello", "max_tokens": TOKENS, "stream": True}
    body |= {"stream_options": {"include_usage": True}}
    async with httpx2.AsyncClient(timeout=30) as client:
        async with client.stream("POST", http(first) + TEXT, json=body) as response:
            broken = Reading(response)
            for _ in range(TOKENS // 3):
                await broken.next()
            await asyncio.to_thread(first.kill)
            with pytest.raises(httpx2.TransportError):
                await broken.all()
        resuming = {"last-event-id": broken.last_id}
        async with client.stream("POST", http(other) + TEXT, json=body, headers=resuming) as response:
            resumed = Reading(response)
            rest = await resumed.all()
        name = {"millrace-job-id": broken.last_id.partition(".")[0]}
        async with client.stream("POST", http(other) + TEXT, json=body, headers=name) as response:
            undisturbed = Reading(response)
            await undisturbed.all()
    assert broken.raw + resumed.raw == undisturbed.raw
    assert rest[-1] == DONE
    assert rest[-2]["usage"]["completion_tokens"] == TOKENS


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
async def test_the_pages_javascript_reads_on_where_its_connection_broke(pair: Fleet, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "openai.md").read_text()
    (code,) = (block for block in page.split("```") if block.startswith("javascript\nconst AGAIN"))
    body = json.dumps({"model": "stub", "prompt": "hello", "max_tokens": TOKENS})
    async with Proxy(pair.frontends[0].ready["http"]) as proxy:
        show = "(chunk) => console.log(JSON.stringify(chunk.choices[0].text))"
        script = f'{code.removeprefix("javascript")}\nawait generate("http://{proxy.address}{TEXT}", {body}, {show});'
        (tmp_path / "page.mjs").write_text(script)
        process = await asyncio.create_subprocess_exec(
            "node", str(tmp_path / "page.mjs"), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(CALLS_S):
            shown = [await process.stdout.readline() for _ in range(TOKENS // 3)]
            proxy.break_connections()
            shown += (await process.stdout.read()).splitlines()
            assert await process.wait() == 0
    assert len("".join(json.loads(text) for text in shown).split()) == TOKENS
