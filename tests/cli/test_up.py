"""`millrace up` and the commands that call it, as processes."""

import asyncio
import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from millrace import AsyncClient
from tests.cli.running import Up, millrace
from tests.eventually import eventually
from tests.stub_models import write_stub


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    models = tmp_path_factory.mktemp("models")
    write_stub(models, step_ms=5)
    (write_stub(models, name="broken") / "model.yaml").write_text("name: broken\nengine: stub\n")
    with Up("--frontends", "2", "--workers", "2", "--models", str(models)) as fleet:
        yield fleet


async def test_the_ready_line_names_every_frontend(up: Up) -> None:
    assert len(up.addresses) == 2
    for address in up.addresses:
        async with AsyncClient(address) as client:
            (model,) = await client.models()
            assert (model.name, list(model.versions), model.ready_workers) == ("stub", ["1"], 2)


async def test_openais_api_is_served_where_metrics_are(up: Up) -> None:
    address = up.log.split("http=")[1].split()[0].split(",")[0]
    with await asyncio.to_thread(urllib.request.urlopen, f"http://{address}/v1/models") as answer:
        assert [model["id"] for model in json.load(answer)["data"]] == ["stub"]


async def test_generate_streams_a_completion_to_standard_output(up: Up) -> None:
    status, text, stats = await millrace(
        "generate", "-m", "stub", "-p", "-", "--max-tokens", "7", "--stats", "--address", up.addresses[0], stdin="hello"
    )
    assert status == 0
    assert len(text.split()) == 7
    assert "7 tokens" in stats


async def test_models_prints_a_table(up: Up) -> None:
    status, text, _ = await millrace("models", "--address", ",".join(up.addresses))
    assert status == 0
    assert "stub" in text
    assert "text-generation" in text


async def test_an_unknown_model_is_said_with_its_code(up: Up) -> None:
    status, _, error = await millrace("generate", "-m", "nothing", "-p", "x", "--address", up.addresses[0])
    assert status == 1
    assert "NOT_FOUND" in error
    assert "there is no model nothing" in error


async def test_bad_input_is_said_field_by_field(up: Up) -> None:
    status, _, error = await millrace("generate", "-m", "stub", "-p", "x", "--top-p", "0", "--address", up.addresses[0])
    assert status == 2
    assert "sampling.top_p" in error


async def test_a_broken_model_folder_is_named_and_the_others_are_served(up: Up) -> None:
    assert "model.broken" in up.log
    assert "broken/1" in up.log


@pytest.mark.parametrize("module", ["services.worker", "services.frontend"])
async def test_a_child_that_dies_is_started_again(up: Up, module: str) -> None:
    victim = up.children(module)[0]
    victim.kill()
    await eventually(lambda: victim.pid not in [child.pid for child in up.children(module)], within_s=10)
    await eventually(lambda: len(up.children(module)) == 2, within_s=10)
    async with AsyncClient(*up.addresses) as client:
        assert len((await client.generate_text("stub", "x", max_tokens=3)).token_ids) == 3


async def test_ctrl_c_drains_and_exits_with_zero_and_leaves_no_process(tmp_path: Path) -> None:
    write_stub(tmp_path, step_ms=5)
    async with Up("--models", str(tmp_path)) as fleet:
        children = psutil.Process(fleet.pid).children(recursive=True)
        fleet.signal(signal.SIGINT)
        assert await asyncio.to_thread(fleet.wait) == 0
    assert len(children) == 3
    assert not any(child.is_running() for child in children)


async def test_a_repository_without_models_is_refused_at_once(tmp_path: Path) -> None:
    status, _, error = await millrace("up", "--models", str(tmp_path))
    assert status == 2
    assert "NAME/VERSION/model.yaml" in error


async def test_a_process_that_cannot_start_ends_the_start_with_its_name(tmp_path: Path) -> None:
    write_stub(tmp_path)
    status, _, error = await millrace(
        "up", "--models", str(tmp_path), "--device", "cuda", "--grpc-port", "0", "--http-port", "0"
    )
    assert status == 1
    assert "worker-1 cannot start" in error
    assert "install the extra millrace[gpu]" in error


async def test_nobody_listening_is_said_with_what_to_do() -> None:
    status, _, error = await millrace("models", "--address", "127.0.0.1:1")
    assert status == 1
    assert "millrace up" in error
