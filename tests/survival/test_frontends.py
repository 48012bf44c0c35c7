"""Two frontends, while they are killed, and clients that know both."""

import asyncio
from pathlib import Path

import pytest

from millrace import AsyncClient
from tests.stub_models import write_stub
from tests.survival.fleet import Transcript, all_have, fleet, stream
from tests.survival.verdict import differences

STREAMS, TOKENS, STEP_MS = 50, 300, 20
LONGEST_STALL_S = 4.0


async def test_fifty_streams_survive_two_kills_of_their_frontend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    stalls = sorted(transcript.stall_s for transcript in seen)
    with capsys.disabled():
        print(f"\nkill -9 of a frontend: stalls median {stalls[STREAMS // 2]:.2f} s, longest {stalls[-1]:.2f} s")
    assert stalls[-1] < LONGEST_STALL_S
