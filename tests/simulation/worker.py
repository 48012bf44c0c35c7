"""A worker on the virtual clock, as services/worker/host.py and emitter.py are: take → step → emit, renew beside it.

One emit is in flight; what the steps add meanwhile goes into the next. A `stubborn` worker does not let go of a lease
that it lost: a ghost goes on writing, renewing and releasing under it.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from millrace.errors import Code, Unavailable
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.types import Emission, End, Ending, Lease, Limits, Priority, Result, Seal, Taken, Verdict
from millrace.v1.generation_pb2 import GenerateResponse
from tests.simulation.ghost import haunt
from tests.simulation.held import Held, Task
from tests.simulation.network import LinkedRedis
from tests.simulation.process import Process
from tests.simulation.world import World

Offers = list[tuple[JobRef, str, int]]
INCOMPLETE = Ending(code=Code.DATA_LOSS, reason="JOB_INCOMPLETE", message="a part of the job is gone")
RETRY_S, HAUNTING_S = 0.2, 3.0
LOOK_S = 0.3
IDLE_S = 1.5
LOG_PAGE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How a worker is."""

    model: ModelVersion
    slots: int
    step_s: float
    largest: float
    """The cost of a job that just fits."""
    splits: bool
    """One result for each token, also where several wait."""
    end_apart: bool
    """The end is written behind the last result."""
    muddles: float
    """How probably it loses count of what it has written."""
    stubborn: bool


class Worker(Process):
    def __init__(self, world: World, name: str, redis: LinkedRedis, limits: Limits, machine: Machine) -> None:
        super().__init__(world, name, redis, limits)
        self.machine = machine
        self.held: dict[str, Held] = {}
        self._draining = False
        self._looked_at = float("-inf")
        self._bell, self._work, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._flushed, self._took_last = asyncio.Event(), asyncio.Event()

    def start(self) -> None:
        self.world.bells[self.name] = self.machine.model, self._bell.set
        for task in (self._take(), self._step(), self._emit(), self._renew()):
            self.spawn(task)

    def crash(self) -> None:
        self.world.bells.pop(self.name, None)
        super().crash()

    async def drain(self, timeout_s: float) -> None:
        """Takes nothing more, lets what runs finish for a while, hands the rest back, and ends."""
        self._draining = True
        self._bell.set()
        await self._took_last.wait()
        await self.sleep(timeout_s)
        rest = list(self.held.values())
        self.held.clear()
        await self._flushed.wait()
        with suppress(Unavailable):
            await self._hand_back(rest)
        if self.machine.stubborn:
            await self.sleep(HAUNTING_S)
        self.crash()

    async def _hand_back(self, rest: list[Held]) -> None:
        """Ghosts come only behind that: a lease that holds has one user."""
        released = [(held.lease.ref, held.lease.token, len(held.tokens)) for held in rest]
        await self.queue.release(self.machine.model, released)
        if self.machine.stubborn:
            for held in rest:
                self.spawn(haunt(self, held))

    # ── take ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take(self) -> None:
        sequence, hold = round(self.world.now * 1000), False
        while not self._draining:
            try:
                offered = await self._offer(hold)
                room = self._room(hold)
                if room == 0 and not offered:
                    await self.wait(self._bell, LOOK_S if self._lower() else IDLE_S)
                    continue
                taken = await self.queue.take(
                    self.machine.model,
                    self.name,
                    sequence,
                    jobs=room,
                    cost=self.machine.largest,
                    alone=all(held.lease.strikes > 0 and held.is_proven for held in self.held.values()),
                    offered=offered,
                )
            except Unavailable:
                await self.sleep(RETRY_S)
                continue
            sequence += 1
            hold = taken.hold
            for token in taken.given_back:
                if token in self.held:
                    self.drop(self.held[token])
            await self._accept(taken)
            if hold or len(taken.leases) < room:
                await self.wait(self._bell, IDLE_S)
        self._took_last.set()

    def _room(self, hold: bool) -> int:
        if any(held.lease.strikes > 0 and not held.is_proven for held in self.held.values()):
            return 0
        return min(self.machine.slots - len(self.held), 1 if hold else self.machine.slots)

    def _lower(self) -> list[Held]:
        """What may give way, the lowest class first."""
        lower = [held for held in self.held.values() if held.lease.priority < max(Priority) and not held.lease.strikes]
        return sorted(lower, key=lambda held: (held.lease.priority, len(held.tokens)))

    async def _offer(self, hold: bool) -> Offers:
        lower = self._lower()
        if hold or self._room(hold) or not lower or any(held.lease.strikes for held in self.held.values()):
            return []
        if self.world.now - self._looked_at < LOOK_S:
            return []
        self._looked_at = self.world.now
        if not await self.queue.is_waited_for(self.machine.model, lower[0].lease.priority):
            return []
        return [(held.lease.ref, held.lease.token, len(held.tokens)) for held in self._lower()]

    async def _accept(self, taken: Taken) -> None:
        for lease in taken.leases:
            self.held[lease.token] = Held(lease=lease, offset=lease.last_offset, history=lease.history)
        for lease in taken.leases:
            await self._load(lease)

    async def _load(self, lease: Lease) -> None:
        """The job's request and its log; a job that has ended meanwhile is given up."""
        while True:
            try:
                payload = lease.payload or await self.queue.payload(lease.ref, lease.fingerprint)
                tokens, results = await self._read_log(lease)
                break
            except Unavailable:
                await self.sleep(RETRY_S)
        held = self.held.get(lease.token)
        if held is None:
            return
        if payload is None or results != lease.last_offset:
            self.drop(held)
            await self._give_up(lease)
            return
        held.task, held.tokens = Task.parse(payload), tokens
        self._work.set()
        self._news.set()

    async def _read_log(self, lease: Lease) -> tuple[list[int], int]:
        tokens: list[int] = []
        read = offset = epoch = 0
        while read < lease.last_offset:
            entries = await self.queue.read(lease.ref, offset, LOG_PAGE, epoch=epoch)
            fresh = [entry.body for entry in entries if isinstance(entry, Result) and entry.body is not None]
            read += len(fresh)
            tokens += [
                token
                for body in fresh
                for delta in GenerateResponse.FromString(body).deltas
                for token in delta.token_ids
            ]
            match entries[-1] if entries else None:
                case Result(offset=offset):
                    epoch = 0
                case Seal(last_offset=offset, epoch=epoch):
                    pass
                case End() | None:
                    return tokens, read
        return tokens, read

    async def _give_up(self, lease: Lease) -> None:
        with suppress(Unavailable):
            await self.queue.emit(self.machine.model, [Emission(ref=lease.ref, token=lease.token, ending=INCOMPLETE)])

    # ── step ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _step(self) -> None:
        while True:
            running = [held for held in self.held.values() if held.is_running]
            if not running:
                await self.wait(self._work, IDLE_S)
                continue
            await self.sleep(self.machine.step_s)
            if any(held.task is not None and held.task.kills(self.world.rng) for held in running):
                self.world.count("accident: a job kills its worker")
                self.crash()
                return
            for held in running:
                if held.lease.token in self.held:
                    held.step()
            self._news.set()

    # ── emit ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _emit(self) -> None:
        while True:
            batch = [
                emission
                for held in self.held.values()
                if held.task is not None
                for emission in held.emissions(split=self.machine.splits, end_apart=self.machine.end_apart)
            ]
            if batch:
                if self.world.rng.random() < self.machine.muddles:
                    batch = [replace(emission, offset=emission.offset + bool(emission.offset)) for emission in batch]
                await self._apply(batch, await self._write(batch))
                continue
            self._flushed.set()
            await self._news.wait()
            self._news.clear()
            self._flushed.clear()
            await self.gate()

    async def _write(self, batch: list[Emission]) -> list[Verdict]:
        while True:
            try:
                return await self.queue.emit(self.machine.model, batch)
            except Unavailable:
                await self.sleep(RETRY_S)

    async def _apply(self, batch: list[Emission], verdicts: list[Verdict]) -> None:
        for emission, verdict in zip(batch, verdicts, strict=True):
            held = self.held.get(emission.token)
            if held is None:
                continue
            if verdict is Verdict.GAP:
                del self.held[emission.token]
                with suppress(Unavailable):
                    await self._hand_back([held])
                self._bell.set()
            elif verdict not in (Verdict.OK, Verdict.DUPLICATE):
                self.drop(held)
            elif emission.ending is not None:
                del self.held[emission.token]
                self._bell.set()

    # ── keep, lose ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _renew(self) -> None:
        while True:
            await self.sleep(self.queue.limits.lease_ms / 3000)
            held = [(entry.lease.ref, entry.lease.token) for entry in self.held.values()]
            if not held:
                continue
            try:
                verdicts = await self.queue.renew(self.machine.model, held)
            except Unavailable:
                continue
            for (_, token), verdict in zip(held, verdicts, strict=True):
                if verdict is not Verdict.OK and token in self.held:
                    self.drop(self.held[token])

    def drop(self, held: Held) -> None:
        self.held.pop(held.lease.token, None)
        self._bell.set()
        if self.machine.stubborn:
            self.spawn(haunt(self, held))
