"""One device, several models: its turns go to the model that has used it least."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
EXECUTION_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
MOST_LANES = 32
TURN_S = 0.02
"""How long a model keeps a lane, in whole steps, while another waits for it."""
NVIDIA_DRIVER = Path("/proc/driver/nvidia/gpus")


def device_name(device: str) -> str:
    """What people call the device: "CPU", "NVIDIA H200"; "CUDA" where the driver does not say."""
    if device == "cpu":
        return "CPU"
    described = (line for file in NVIDIA_DRIVER.glob("*/information") for line in file.read_text().splitlines())
    return next((line.partition(":")[2].strip() for line in described if line.startswith("Model:")), "CUDA")


class Turn:
    """A lane of the device, in the hands of one model."""

    def __init__(self, device: "Device", name: str) -> None:
        self._device, self._name = device, name
        self._since = time.monotonic()
        self.step_began: float | None = None
        """When the step that runs began; None between steps."""

    async def run(self, call: Callable[[], T]) -> T:
        """Runs a call that blocks, one step or more, on a thread of the device."""
        self.step_began = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._device.threads, call)
        finally:
            self.step_began = None

    def goes_on(self) -> bool:
        """Whether the model may step again without going back in line; asked on the device's thread after each step."""
        self.step_began = time.monotonic()
        if self.step_began - self._since < TURN_S:
            return True
        self.settle()
        return not self._device.is_awaited(self._name)

    def settle(self) -> None:
        """Charges the model with the time since it was last charged."""
        now = time.monotonic()
        self._device.charge(self._name, now - self._since)
        self._since = now


class Device:
    """The threads on which all engines of this process step: as many turns at once as the model with most lanes has."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(max_workers=MOST_LANES, thread_name_prefix="engine")
        self._widths: list[int] = []
        self._turns = 0
        self._used: dict[str, float] = {}
        self._waiting: dict[str, deque[asyncio.Event]] = {}
        self._clock = 0.0
        self._open: set[Turn] = set()

    def widen(self, lanes: int) -> None:
        """Lets so many turns go on at once, at least. Raises ValueError where that is more than a process has."""
        if lanes > MOST_LANES:
            raise ValueError(f"{lanes} sessions are more than the {MOST_LANES} that one process runs")
        self._widths.append(lanes)

    def narrow(self, lanes: int) -> None:
        """Takes back what a `widen` said."""
        self._widths.remove(lanes)

    @property
    def _lanes(self) -> int:
        return max(self._widths, default=1)

    def stalled_s(self) -> float:
        """For how long the oldest step has been running; 0 where none is. May be asked on any thread."""
        began = [at for turn in tuple(self._open) if (at := turn.step_began) is not None]
        return time.monotonic() - min(began) if began else 0.0

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[Turn]:
        """A lane of the device, for as long as the turn goes on.

        Start-time fair queueing: a model's tag is the time it has used, but at least the tag of the turn that began
        last, so that one that comes new or back claims nothing for the past.
        """
        self._used[name] = max(self._used.get(name, 0.0), self._clock)
        await self._wait(name)
        self._clock = max(self._clock, self._used[name])
        turn = Turn(self, name)
        self._open.add(turn)
        try:
            yield turn
        finally:
            self._open.discard(turn)
            turn.settle()
            self._release()

    def is_awaited(self, name: str) -> bool:
        """Whether another model waits for a lane."""
        return len(self._waiting) > (name in self._waiting)

    def charge(self, name: str, seconds: float) -> None:
        """Nobody who comes later has a claim on time that nobody else wanted."""
        self._used[name] += seconds
        if not self.is_awaited(name):
            self._clock = max(self._clock, self._used[name])

    async def _wait(self, name: str) -> None:
        if self._turns < self._lanes and not self._waiting:
            self._turns += 1
            return
        event = asyncio.Event()
        queue = self._waiting.setdefault(name, deque())
        queue.append(event)
        try:
            await event.wait()
        except asyncio.CancelledError:
            if event.is_set():
                self._release()
            else:
                queue.remove(event)
                self._tidy(name)
            raise

    def _release(self) -> None:
        """Passes the lane on one round of the event loop later, so that the model that had it may contend again."""
        self._turns -= 1
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        while self._turns < self._lanes and self._waiting:
            self._turns += 1
            name = min(self._waiting, key=self._used.__getitem__)
            self._waiting[name].popleft().set()
            self._tidy(name)

    def _tidy(self, name: str) -> None:
        if not self._waiting[name]:
            del self._waiting[name]
