"""vLLM's CPU build behind its own HTTP server, in an environment of its own."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.children import MeasurementFailed
from millrace.cli.embedded import free_port

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
"""As we call them, and as it does."""
MODEL = "llama"
READY_S = 480.0
"""It compiles its kernels where it has not run before."""
STOP_S = 20.0
POLL_S = 0.25
KV_GIB = 1
"""43,000 tokens of the measured model in fp32."""
LOG_LINES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How to start it."""

    python: Path
    model: Path
    """The folder of a Hugging Face checkpoint."""
    precision: str
    context: int
    folder: Path
    """Where its log goes."""
    cache: Path
    """Where compiled kernels stay from run to run."""

    def command(self, port: int) -> list[str]:
        serve = [str(self.python), "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        model = ["--model", str(self.model), "--served-model-name", MODEL, "--max-model-len", str(self.context)]
        more = ["--dtype", PRECISIONS[self.precision], "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
        return [*serve, "--port", str(port), *model, *more]

    def environment(self) -> dict[str, str]:
        bin_folder = str(self.python.parent)
        return os.environ | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "VLLM_CPU_KVCACHE_SPACE": str(KV_GIB),
            "VLLM_CPU_OMP_THREADS_BIND": _cores(),
            "VLLM_CACHE_ROOT": str(self.cache),
            "TORCHINDUCTOR_CACHE_DIR": str(self.cache / "inductor"),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }


def _cores() -> str:
    """All that this process may use. By itself the server would keep one of them free."""
    return ",".join(map(str, sorted(os.sched_getaffinity(0)))) if hasattr(os, "sched_getaffinity") else "auto"


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    """Runs the server, and gives its HOST:PORT once it is ready. Raises TimeoutError, and MeasurementFailed, with the
    end of its log, where it ends before that."""
    server.folder.mkdir(parents=True, exist_ok=True)
    log, port = server.folder / "log", free_port()
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            *server.command(port), env=server.environment(), stdout=output, stderr=output, start_new_session=True
        )
    try:
        await _until_ready(child, port, log)
        yield f"127.0.0.1:{port}"
    finally:
        await _stop(child)


async def _until_ready(child: asyncio.subprocess.Process, port: int, log: Path) -> None:
    until = time.monotonic() + READY_S
    while not await _is_healthy(port):
        if child.returncode is not None:
            last = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise MeasurementFailed(f"the server ended with status {child.returncode}: {' '.join(last)}")
        if time.monotonic() > until:
            raise TimeoutError(f"the server was not ready within {READY_S:.0f} s")
        await asyncio.sleep(POLL_S)


async def _is_healthy(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        status = await reader.readline()
        writer.close()
    except OSError:
        return False
    return b" 200 " in status


async def _stop(child: asyncio.subprocess.Process) -> None:
    """The server and the processes that it started, which share its session."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), STOP_S)
