"""A completion in a terminal, beside many others, and what becomes of it when its worker is killed."""

import asyncio
import os
import shlex
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

from millrace import AsyncClient
from scripts.demo import until_idle
from scripts.gallery.terminal import ALARM, FAINT, Recording, record, write

MODEL, PROMPT, TOKENS, SEED = "pycode", "class Stack", 420, 8
OTHERS = 23
KILL_AT_S, PAUSE_S = 2.5, 1.0


async def draw(client: AsyncClient, address: str, path: Path) -> None:
    """Raises RuntimeError where no pause of the stream is seen: then it was not its worker that was killed."""
    await until_idle(client)
    options = ["-m", MODEL, "-p", PROMPT, "--max-tokens", str(TOKENS), "--seed", str(SEED), "--stats"]
    recording = Recording(command=shlex.join(["millrace", "generate", *options]))
    async with asyncio.TaskGroup() as group:
        others = [group.create_task(_other(client, number)) for number in range(OTHERS)]
        await _all_run(client, OTHERS)
        before = {worker.worker_id: worker.running_jobs for worker in await client.workers()}
        killing = group.create_task(_kill(client, before, recording))
        arguments = [sys.executable, "-m", "millrace.cli", "generate", *options]
        recording.began = time.monotonic()
        await record([*arguments, "--address", address], recording, lambda: _tell_of_the_pause(recording))
        await killing
        for other in others:
            other.cancel()
    if not _pauses(recording):
        raise RuntimeError("the stream had no pause: another worker held it; draw it again")
    write(recording, path)
    print(f"{path}: {path.stat().st_size:,} bytes, a pause of {_pauses(recording)[0]:.2f} s")


async def _other(client: AsyncClient, number: int) -> None:
    """Streams without an end, beside the one that is recorded."""
    while True:
        async for _ in client.generate(MODEL, f"def f{number}(x):\n", max_tokens=TOKENS, seed=number, ignore_eos=True):
            pass


async def _all_run(client: AsyncClient, jobs: int) -> None:
    async with asyncio.timeout(20):
        while True:
            if sum(worker.running_jobs for worker in await client.workers()) >= jobs:
                return
            await asyncio.sleep(0.1)


async def _kill(client: AsyncClient, before: dict[str, int], recording: Recording) -> None:
    """The worker that has one job more than before."""
    await asyncio.sleep(KILL_AT_S)
    grown = {worker.worker_id: worker.running_jobs - before[worker.worker_id] for worker in await client.workers()}
    name = max(grown, key=lambda one: grown[one])
    process = int(name.rsplit("-", 2)[1])
    os.kill(process, signal.SIGKILL)
    recording.note(f"{recording.now:.1f} s   kill -9 {process}, the worker that holds this stream", ALARM)


def _tell_of_the_pause(recording: Recording) -> None:
    if len(recording.events) == 1 and (pauses := _pauses(recording)):
        pause = f"another worker goes on behind the last token, {pauses[0]:.1f} s later"
        recording.note(f"{recording.now:.1f} s   {pause}", FAINT)


def _pauses(recording: Recording) -> list[float]:
    """Of more than PAUSE_S, between what came."""
    return [after - before for (before, _), (after, _) in pairwise(recording.pieces) if after - before > PAUSE_S]
