"""`millrace load-model`, `unload-model` and `models --all`, as processes on a running Millrace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Up, millrace
from tests.stub_models import write_stub


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_stub(models, step_ms=5)
    (write_stub(models, name="broken") / "model.yaml").write_text("name: broken\nengine: stub\n")
    return models


@pytest.fixture(scope="module")
def up(models: Path) -> Iterator[Up]:
    with Up("--workers", "2", "--models", str(models)) as fleet:
        yield fleet


async def test_everything_in_the_repository_is_shown_with_its_state_and_reason(up: Up) -> None:
    status, text, _ = await millrace("models", "--all", "--address", up.addresses[0])
    assert status == 0
    rows = {line.split()[0]: line for line in text.splitlines() if len(line.split()) > 2}
    assert "READY" in rows["stub"]
    assert "UNAVAILABLE" in rows["broken"]
    assert "model.yaml: task" in rows["broken"]


async def test_a_model_is_unloaded_and_loaded_again(up: Up) -> None:
    status, _, told = await millrace("unload-model", "stub", "--address", up.addresses[0])
    assert (status, told.splitlines()[-1]) == (0, "stub: version 1 UNAVAILABLE")
    status, _, error = await millrace("generate", "-m", "stub", "-p", "x", "--address", up.addresses[0])
    assert (status, "NOT_FOUND" in error) == (1, True)
    status, _, told = await millrace("load-model", "stub", "--address", up.addresses[0])
    assert (status, told.splitlines()[-1]) == (0, "stub: version 1 READY")
    arguments = ("-m", "stub", "-p", "x", "--max-tokens", "3", "--address", up.addresses[0])
    status, text, _ = await millrace("generate", *arguments)
    assert (status, len(text.split())) == (0, 3)


async def test_a_model_whose_folder_is_new_is_found(up: Up, models: Path) -> None:
    write_stub(models, name="newcomer")
    status, _, told = await millrace("load-model", "newcomer", "--address", up.addresses[0])
    assert (status, told.splitlines()[-1]) == (0, "newcomer: version 1 READY")


async def test_what_cannot_be_loaded_is_said_with_the_reason_and_what_to_do(up: Up) -> None:
    status, _, error = await millrace("load-model", "broken", "--address", up.addresses[0])
    assert status == 1
    assert "FAILED_PRECONDITION MODEL_LOAD_FAILED" in error
    assert "broken/1: model.yaml: task" in error
    assert "millrace models --all" in error


async def test_a_model_that_is_not_there_is_said(up: Up) -> None:
    status, _, error = await millrace("unload-model", "nothing", "--address", up.addresses[0])
    assert (status, "NOT_FOUND MODEL_UNKNOWN" in error) == (1, True)
