"""The held-out sounds through the service: `millrace up` on free ports of this machine, asked over gRPC."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from examples.serving import serving
from examples.speech.corpus import Labelled
from millrace.client import AsyncClient

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
