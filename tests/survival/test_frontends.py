"""Two frontends, while they are killed, and clients that know both."""

import asyncio
from pathlib import Path

from millrace import AsyncClient
from tests.stub_models import write_stub
from tests.survival.fleet import Transcript, all_have, fleet, stream
from tests.survival.verdict import differences

STREAMS, TOKENS, STEP_MS = 50, 300, 20


async def test_fifty_streams_survive_two_kills_of_their_frontend(tmp_path: Path) -> None:
    write_stub(tmp_path, step_ms=STEP_MS)
    seen = [Transcript(job_id=f"reattach-{i}", prompt="x") for i in range(STREAMS)]
    async with fleet(tmp_path, frontends=2, workers=1) as running:
        async with AsyncClient(*running.addresses) as client, asyncio.TaskGroup() as tasks:
            for transcript in seen:
                tasks.create_task(stream(client, transcript, "stub", max_tokens=TOKENS))
            for frontend, tokens in ((running.frontends[0], 50), (running.frontends[1], 150)):
                await all_have(seen, tokens)
                await running.replace(frontend)
        assert await differences(running, "stub", seen, stub=True) == []
    assert [transcript.tokens for transcript in seen] == [TOKENS] * STREAMS
    assert max(transcript.stall_s for transcript in seen) < 4.0
