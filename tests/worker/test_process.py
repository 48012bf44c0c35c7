"""The worker as a process."""

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from redis.asyncio import Redis

from millrace.queue import Registry
from tests.eventually import eventually
from tests.processes import Service, Valkey
from tests.stub_models import write_stub


async def test_a_worker_that_starts_before_redis_waits_for_it(tmp_path: Path) -> None:
    write_stub(tmp_path)
    async with Valkey(durable=True) as valkey:
        valkey.kill()
        worker = Service("services.worker", {"MILLRACE_REDIS_URL": valkey.url, "MILLRACE_MODELS": str(tmp_path)})
        worker.launch()
        await eventually(lambda: "redis.away" in worker.log, within_s=20)
        valkey.start()
        async with worker, Redis.from_url(valkey.url) as redis:
            (entry,) = await Registry(redis).workers()
            assert (entry.state, entry.models) == ("ready", ("stub/1",))


async def test_a_worker_without_a_model_says_so_and_ends(tmp_path: Path) -> None:
    (write_stub(tmp_path) / "model.yaml").write_text("name: stub\n")
    async with Valkey() as valkey:
        command = [sys.executable, "-m", "services.worker", "--redis-url", valkey.url, "--models", str(tmp_path)]
        ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "stub/1" in ended.stderr
    assert "can be served" in ended.stderr


def told(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_a_worker_tells_its_metrics_and_health_where_it_is_asked_to(tmp_path: Path) -> None:
    write_stub(tmp_path)
    with Valkey() as valkey:
        environment = {
            "MILLRACE_REDIS_URL": valkey.url,
            "MILLRACE_MODELS": str(tmp_path),
            "MILLRACE_HTTP_ADDRESS": "127.0.0.1:0",
            "MILLRACE_DRAIN_S": "0",
        }
        async with Service("services.worker", environment) as worker:
            address = worker.ready["http"]
            status, ready = await asyncio.to_thread(told, address, "/readyz")
            assert (status, json.loads(ready)["models"]) == (200, ["stub/1"])
            assert (await asyncio.to_thread(told, address, "/healthz"))[0] == 200
            _, metrics = await asyncio.to_thread(told, address, "/metrics")
            assert 'millrace_worker_free_slots{model="stub/1"} 64.0' in metrics.splitlines()
            assert 'millrace_engine_steps_total{model="stub/1"} 0.0' in metrics.splitlines()
            valkey.kill()
            await eventually(lambda: told(address, "/readyz")[0] == 503, within_s=20)


async def test_a_worker_refuses_an_address_that_it_cannot_have(tmp_path: Path) -> None:
    write_stub(tmp_path)
    command = [sys.executable, "-m", "services.worker", "--models", str(tmp_path), "--http-address"]
    for address, said in (("127.0.0.1:99999", "http_address 127.0.0.1:99999"), ("8002", "--http-address")):
        ended = await asyncio.to_thread(subprocess.run, [*command, address], capture_output=True, text=True, timeout=30)
        assert ended.returncode == 2
        assert said in ended.stdout + ended.stderr
