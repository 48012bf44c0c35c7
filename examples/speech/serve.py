"""The held-out sounds through the service: `millrace up` on free ports of this machine, asked over gRPC."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from examples.speech.corpus import Labelled
from millrace.client import AsyncClient

ROOT = Path(__file__).parents[2]
START_S = 120
AT_ONCE = 16


def transcripts(models: Path, model: str, versions: Sequence[str], sounds: Sequence[Labelled]) -> dict[str, list[str]]:
    """What the service hears in each, by version. Raises RuntimeError where it cannot be started."""
    return asyncio.run(_transcripts(models, model, versions, sounds))


async def _transcripts(
    models: Path, model: str, versions: Sequence[str], sounds: Sequence[Labelled]
) -> dict[str, list[str]]:
    slots = asyncio.Semaphore(AT_ONCE)
    async with serving(models) as address, AsyncClient(address) as client:

        async def ask(version: str, one: Labelled) -> str:
            async with slots:
                audio = one.path.read_bytes()
                return await client.transcribe_text(model, audio, model_version=version, priority="batch")

        return {version: await asyncio.gather(*(ask(version, one) for one in sounds)) for version in versions}


@asynccontextmanager
async def serving(models: Path) -> AsyncIterator[str]:
    """The gRPC address of a fleet that serves what is in `models`, until the block ends."""
    options = ("--grpc-port", "0", "--http-port", "0", "--models", str(models.resolve()))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "millrace.cli", "up", *options), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = (await process.stdout.readline()).decode()
        if not line.startswith("millrace ready "):
            raise RuntimeError("millrace up did not become ready; its messages above say why")
        yield line.split("grpc=")[1].split()[0].split(",")[0]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()
