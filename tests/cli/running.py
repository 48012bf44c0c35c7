"""`millrace up`, and the commands that call it, as processes."""

import asyncio
import os
import sys

import psutil

from tests.processes import Process


class Up(Process):
    """`millrace up` with these options, ready once it has printed its ready line."""

    def __init__(self, *options: str) -> None:
        super().__init__([sys.executable, "-m", "millrace.cli", "up", "--grpc-port", "0", "--http-port", "0", *options])

    def _is_ready(self) -> bool:
        return bool(self.addresses)

    @property
    def addresses(self) -> list[str]:
        for line in self.log.splitlines():
            if line.startswith("millrace ready "):
                return line.split("grpc=")[1].split()[0].split(",")
        return []

    def children(self, module: str) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.pid).children() if _runs(child, module)]


def _runs(process: psutil.Process, module: str) -> bool:
    """Whether it runs this module, and is not dying at the moment."""
    try:
        return module in " ".join(process.cmdline())
    except psutil.Error:
        return False


async def millrace(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Runs a command; its exit status, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "millrace.cli",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"COLUMNS": "140"},
    )
    stdout, stderr = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()
