"""Triton's client's streams, unchanged, against a fleet of real processes."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from millrace.errors import Code
from millrace.queue import JobQueue, JobRef, ModelVersion, State, connect
from tests.eventually import eventually
from tests.survival.fleet import fleet

ROOT = Path(__file__).parents[2]
DIGITS, PYCODE = ROOT / "models" / "digits", ROOT / "models" / "pycode"
CALLS_S = 90


@pytest.mark.timeout(240)
async def test_tritonclient_streams_cancels_and_resumes(tmp_path: Path) -> None:
    for model in (DIGITS, PYCODE):
        shutil.copytree(model, tmp_path / model.name)
    async with fleet(tmp_path, frontends=2, workers=1) as running:
        command = (sys.executable, "-m", "tests.contract.triton_streams", *running.addresses, DIGITS / "held_out.npz")
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE, cwd=ROOT)
        async with asyncio.timeout(CALLS_S):
            output, _ = await process.communicate()
        assert process.returncode == 0
        await is_cancelled(running.valkey.url, "cancelled-stream")
    seen = json.loads(output)
    assert seen["labels"] == np.load(DIGITS / "held_out.npz")["label"][:3].tolist()
    assert (seen["ids"], seen["finals"]) == (["0", "1", "2", "7", "7", "last"], [True] * 3)
    assert seen["whole"] == seen["streamed"]
    assert seen["whole"].startswith("def fibonacci(")
    assert seen["pieces"] > 5
    for message, words in zip(
        seen["failures"],
        ("there is no model nothing", "x takes FP32, not FP64", "inputs[sampling_parameters].temprature: is not known"),
        strict=True,
    ):
        assert words in message
    assert seen["cancelled"] == "StatusCode.CANCELLED"
    assert seen["resumed"] == seen["undisturbed"]
    assert seen["offsets"] == list(range(1, len(seen["offsets"]) + 1))
    assert seen["async"] == [seen["whole"]] * 2
    assert seen["async_errors"] == ["inputs[sampling_parameters].top_p: must be in (0, 1]"]
    assert (seen["async_cancelled"], seen["async_status"]) == (True, "StatusCode.INVALID_ARGUMENT")


async def is_cancelled(redis_url: str, job_id: str) -> None:
    redis = connect(redis_url)
    queue, ref = JobQueue(redis), JobRef(ModelVersion("pycode", "1"), "default", job_id)

    async def ended() -> bool:
        record = await queue.inspect(ref)
        return record is not None and record.state is State.ENDED

    await eventually(ended)
    record = await queue.inspect(ref)
    assert record is not None
    assert record.ending is not None
    assert record.ending.code is Code.CANCELLED
    await redis.aclose()
