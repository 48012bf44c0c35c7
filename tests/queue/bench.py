"""A queue on the test's bench: short verbs with defaults, so that a test says only what it is about."""

from typing import Any

from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.queue import JobQueue
from millrace.queue.types import Emission, Ending, JobRecord, Lease, Limits, Result, State, Submission, Taken, Verdict
from tests.queue.clock import Clock, ClockedRedis

MODEL = ModelVersion("story", "1")


def submission(job_id: str, **fields: Any) -> Submission:
    """A small job of tenant `a` that is wanted to its deadline."""
    defaults: dict[str, Any] = {"fingerprint": "1" * 32, "payload": b"request", "cost": 10, "wanted_to_deadline": True}
    ref = JobRef(fields.pop("model", MODEL), fields.pop("tenant", "a"), job_id)
    return Submission(ref=ref, **(defaults | {"retained": True} | fields))


def result(lease: Lease, offset: int, **fields: Any) -> Emission:
    """A lease's result at an offset; its body names both."""
    body = f"{lease.ref.job_id}:{offset}:{lease.epoch}".encode()
    return Emission(ref=lease.ref, token=lease.token, offset=offset, history=bytes(8), result=body, **fields)


class Bench:
    """One model's queue, and its clock."""

    def __init__(self, redis: ClockedRedis, clock: Clock, limits: Limits | None = None) -> None:
        self.redis, self.clock = redis, clock
        self.queue = JobQueue(redis, limits)
        self._sequence = 0

    def limited(self, **limits: int) -> "Bench":
        """The same queue under other limits."""
        return Bench(self.redis, self.clock, Limits(**limits))

    async def submit(self, job_id: str, **fields: Any) -> JobRef:
        return await self.queue.submit(submission(job_id, **fields))

    async def take(self, worker: str = "w", jobs: int = 1, *, alone: bool = True, cost: float = 1e9) -> list[Lease]:
        self._sequence += 1
        taken = await self.queue.take(MODEL, worker, self._sequence, jobs=jobs, cost=cost, alone=alone)
        return list(taken.leases)

    async def take_in_place(self, *lower: Lease, worker: str = "w", jobs: int = 0, cost: float = 1e9) -> Taken:
        """What a worker without room takes, or with room for `jobs`, that would give these back."""
        self._sequence += 1
        offered = [(lease.ref, lease.token, 0) for lease in lower]
        return await self.queue.take(MODEL, worker, self._sequence, jobs=jobs, cost=cost, alone=False, offered=offered)

    async def take_one(self, worker: str = "w") -> Lease:
        (lease,) = await self.take(worker)
        return lease

    async def emit(self, *emissions: Emission) -> list[Verdict]:
        return await self.queue.emit(MODEL, emissions)

    async def finish(self, lease: Lease, cost: int = 0) -> Verdict:
        """Ends a job with success, without a further result."""
        (verdict,) = await self.emit(Emission(ref=lease.ref, token=lease.token, ending=Ending(), cost=cost))
        return verdict

    async def pass_time(self, seconds: float, *, renewing: Lease | None = None) -> None:
        """Time passes; somebody reaps each second, as in a fleet that is alive."""
        while seconds > 0:
            self.clock.now += round(min(seconds, 1.0) * 1000)
            seconds -= 1.0
            await self.redis.purge()
            if renewing is not None:
                await self.queue.renew(MODEL, [(renewing.ref, renewing.token)])
            await self.queue.reap(MODEL)

    async def be_away(self, seconds: float) -> None:
        """The server is gone for a while: nobody can renew or reap."""
        self.clock.now += round(seconds * 1000)
        await self.redis.purge()

    async def record(self, ref: JobRef) -> JobRecord:
        record = await self.queue.inspect(ref)
        assert record is not None
        return record

    async def state(self, ref: JobRef) -> State:
        return (await self.record(ref)).state

    async def reason(self, ref: JobRef) -> str:
        """Why a job ended; empty before, and after success."""
        ending = (await self.record(ref)).ending
        return ending.reason if ending else ""

    async def offsets(self, ref: JobRef) -> list[int]:
        return [entry.offset for entry in await self.queue.read(ref) if isinstance(entry, Result)]

    async def job_ids(self, count: int, worker: str = "w") -> list[str]:
        """The next jobs, in the order in which they are taken one by one."""
        return [(await self.take_one(worker)).ref.job_id for _ in range(count)]
