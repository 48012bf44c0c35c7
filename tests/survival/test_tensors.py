"""Calls with tensors while workers and frontends die."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from millrace import AsyncClient
from tests.eventually import eventually
from tests.processes import Service
from tests.survival.fleet import Fleet, fleet

DIGITS = Path(__file__).parents[2] / "models" / "digits"
CALLS, FIRST = 1_500, 50


@pytest.mark.parametrize("kind", ["worker", "frontend"])
async def test_every_call_is_answered_though_a_process_dies(tmp_path: Path, kind: str) -> None:
    shutil.copytree(DIGITS, tmp_path / "digits")
    with np.load(DIGITS / "held_out.npz") as held_out:
        images, labels = held_out["x"].astype(np.float32), held_out["label"]
    found: dict[int, int] = {}

    async def classify(client: AsyncClient, call: int) -> None:
        answer = await client.infer("digits", {"x": images[call % len(images)][np.newaxis]})
        found[call] = int(answer["label"][0])

    async with (
        fleet(tmp_path, frontends=2, workers=2) as running,
        AsyncClient(*running.addresses) as client,
        asyncio.TaskGroup() as calls,
    ):
        for call in range(CALLS):
            calls.create_task(classify(client, call))
        await eventually(lambda: len(found) >= FIRST, within_s=30.0)
        await asyncio.to_thread(_victim(running, kind).kill)
        assert len(found) < CALLS
    assert found == {call: int(labels[call % len(labels)]) for call in range(CALLS)}


def _victim(running: Fleet, kind: str) -> Service:
    return running.workers[0] if kind == "worker" else running.frontends[0]
