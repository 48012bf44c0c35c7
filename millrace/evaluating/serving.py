"""A fleet for as long as an evaluation needs one."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from millrace.lifetime import die_with_parent

START_S = 120
UP = ("-m", "millrace.cli", "up", "--grpc-port", "0", "--http-port", "0", "--no-openai", "--no-page")


@asynccontextmanager
async def serving(models: Path, *, device: str = "auto", threads: int = 0) -> AsyncIterator[str]:
    """The gRPC address of a fleet that serves what is in the folder `models`, on free ports, until the block ends.
    `threads`: of a run; 0: as many as there are cores.

    Raises RuntimeError with the last of its words where it does not start.
    """
    environment = os.environ | ({"MILLRACE_THREADS": str(threads)} if threads else {})
    command = [sys.executable, *UP, "--device", device, "--models", str(models.resolve())]
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=said, env=environment, preexec_fn=die_with_parent
        )
        assert process.stdout is not None
        try:
            try:
                line = (await asyncio.wait_for(process.stdout.readline(), START_S)).decode()
            except TimeoutError:
                line = ""
            if not line.startswith("millrace ready "):
                said.seek(0)
                raise RuntimeError(f"no fleet could be started: {_reason(said.read().decode(errors='replace'))}")
            yield line.split("grpc=")[1].split()[0].split(",")[0]
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _reason(said: str) -> str:
    """The last of its lines that speaks of an error; else the last of all."""
    lines = said.splitlines() or ["it said nothing"]
    return next((line for line in reversed(lines) if "error" in line or line.startswith("millrace: ")), lines[-1])
