"""One device, several models: its turn goes to the model that has used it least."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
EXECUTION_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
NVIDIA_DRIVER = Path("/proc/driver/nvidia/gpus")


def device_name(device: str) -> str:
    """What people call the device: "CPU", "NVIDIA H200"; "CUDA" where the driver does not say."""
    if device == "cpu":
        return "CPU"
    described = (line for file in NVIDIA_DRIVER.glob("*/information") for line in file.read_text().splitlines())
    return next((line.partition(":")[2].strip() for line in described if line.startswith("Model:")), "CUDA")


class Device:
    """The thread on which all engines of this process run, one call at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._used: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Event] = {}
        self._clock = 0.0
        self._busy = False
        self._call_began: float | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """Runs a call that blocks on the engine thread."""
        self._call_began = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        finally:
            self._call_began = None

    def stalled_s(self) -> float:
        """For how long the call in progress has been running; 0 between calls."""
        return 0.0 if self._call_began is None else time.monotonic() - self._call_began

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """The device, for one step of one model.

        Start-time fair queueing: a model's tag is the time it has used, but at least the tag of the turn that began
        last, so that one that comes new or back claims nothing for the past.
        """
        self._used[name] = max(self._used.get(name, 0.0), self._clock)
        await self._wait(name)
        self._clock, began = self._used[name], time.monotonic()
        try:
            yield
        finally:
            self._used[name] += time.monotonic() - began
            self._release()

    async def _wait(self, name: str) -> None:
        if not self._busy and not self._waiting:
            self._busy = True
            return
        event = self._waiting[name] = asyncio.Event()
        try:
            await event.wait()
        except asyncio.CancelledError:
            if event.is_set():
                self._release()
            raise
        finally:
            self._waiting.pop(name, None)

    def _release(self) -> None:
        """Passes the device on one round of the event loop later, so that the model that had it may contend again."""
        self._busy = False
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        if self._busy or not self._waiting:
            return
        self._busy = True
        self._waiting[min(self._waiting, key=self._used.__getitem__)].set()
