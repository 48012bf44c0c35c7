"""The options by which commands find and know a service."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from millrace import AsyncClient, Denied, InvalidRequest
from millrace.cli import calls
from millrace.cli.app import app
from millrace.cli.service import Service
from millrace.cli.top.command import reading
from millrace.load.asking.asker import Asker
from millrace.load.run import find_model
from millrace.load.scenario import make_scenario, read_scenario
from millrace.load.server import metrics_addresses
from tests.certificates import Authority
from tests.frontend.access.tenants import Book
from tests.frontend.playing import Worker, frontend

SCENARIO = "{model: echo, address: '%s', arrivals: {callers: 1}, tls: {ca: ca.crt, cert: caller.crt, key: caller.key}}"


async def test_commands_top_and_load_call_by_tls(
    redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = Authority(tmp_path)
    pair, mine = ours.issue("server", "127.0.0.1"), ours.issue("caller")
    files = {"tls_cert": pair.cert, "tls_key": pair.key, "tls_client_ca": ours.ca, "health_address": "127.0.0.1:0"}
    async with Worker(redis_url), frontend(redis_url, **files) as served:
        service = Service(address=served.grpc_address, tls_ca=ours.ca, tls_cert=mine.cert, tls_key=mine.key)
        await calls.models(service)
        assert "echo" in capsys.readouterr().out
        async with reading(service, served.health_address) as reader:
            seen = await reader.read()
        assert seen.fleet_problem == ""
        assert not any(scraped.problem for scraped in seen.frontends.values())
        scenario = tmp_path / "scenario.yaml"
        scenario.write_text(SCENARIO % served.grpc_address)
        assert (await find_model(await asyncio.to_thread(read_scenario, scenario))).name == "echo"


async def test_load_takes_its_key_from_the_environment_and_keeps_it_out_of_the_scenario(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book(tmp_path / "tenants.yaml")
    key = book.add("acme")
    async with Worker(redis_url), frontend(redis_url, api_keys=book.path) as served:
        scenario = make_scenario({"model": "echo", "address": served.grpc_address, "arrivals": {"callers": 1}})
        with pytest.raises(Denied):
            await find_model(scenario)
        monkeypatch.setenv("MILLRACE_API_KEY", key)
        assert (await find_model(scenario)).name == "echo"
        async with Asker(scenario, "generate", "salt") as asker:
            assert dict(asker._calls.metadata)["authorization"] == f"Bearer {key}"
    assert key not in scenario.model_dump_json()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tls-ca", "none.crt"], "none.crt: No such file"),
        (["--tls-cert", "mine.crt"], "need each other"),
    ],
)
def test_files_that_cannot_be_used_are_told(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = CliRunner().invoke(app, ["models", *options])
    assert ended.exit_code == 2
    assert said in " ".join((ended.output + capsys.readouterr().err).split())


def test_metrics_are_looked_for_in_plaintext_beside_tls() -> None:
    settings = {"model": "echo", "address": "a:8001", "arrivals": {"callers": 1}}
    assert metrics_addresses(make_scenario(settings)) == ["a:8002"]
    assert metrics_addresses(make_scenario(settings | {"tls": True})) == ["a:8003"]


def test_any_of_its_options_means_tls() -> None:
    assert not Service().by_tls
    for service in (Service(tls=True), Service(tls_ca=Path("ca.crt")), Service(tls_name="millrace")):
        assert service.by_tls
    assert isinstance(Service(tls=True).client(), AsyncClient)
    with pytest.raises(InvalidRequest, match="--tls"):
        Service(tls_ca=Path("/nonexistent/ca.crt")).client()
