"""A worker that is busy without a pause."""

from pathlib import Path

from millrace import AsyncClient
from tests.stub_models import write_stub
from tests.survival.fleet import fleet

TOKENS = 400


async def test_a_worker_may_be_busy_for_longer_than_one_step_may_take(tmp_path: Path) -> None:
    write_stub(tmp_path, step_ms=10)
    async with (
        fleet(tmp_path, frontends=1, workers=1, MILLRACE_STALL_S="1") as running,
        AsyncClient(*running.addresses) as client,
    ):
        completion = await client.generate_text("stub", "go on", max_tokens=TOKENS)
        assert running.workers[0].returncode is None
    assert len(completion.token_ids) == TOKENS
