"""The worker as a process."""

import asyncio
import subprocess
import sys
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
