"""What the machine is built on: names, limits, what hypothesis may draw, and the connection that all examples share."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from hypothesis import strategies as st

from millrace.errors import Code
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.queue import JobQueue
from millrace.queue.types import Ending, Limits, Priority, Submission
from tests.queue.clock import START_MS, Clock, ClockedRedis
from tests.queue.probe import Listener

MODEL = ModelVersion("m", "1")
LIMITS = Limits(
    retention_ms=20_000,
    linger_ms=8_000,
    max_waiting_jobs=5,
    max_waiting_cost=60,
    max_tenant_jobs=2,
    max_payload_bytes=260,
)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}
WORKERS = ["w1", "w2", "w3"]
FRONTENDS = ["f1", "f2"]
NAMES = [JobRef(MODEL, tenant, job_id) for tenant in WEIGHTS for job_id in ("1", "2", "3")]
ENDINGS = [Ending(), Ending(code=Code.INTERNAL, reason="BROKEN", message="the model broke", field="text")]

refs = st.sampled_from(NAMES)
index = st.integers(0, 11)
picks = st.lists(index, min_size=1, max_size=3)
workers, frontends = st.sampled_from(WORKERS), st.sampled_from(FRONTENDS)
moments = st.sampled_from([0, 0, 1, 1_400])
submissions = st.builds(
    lambda ref, **fields: Submission(ref=ref, weight=WEIGHTS[ref.tenant], **fields),
    ref=refs,
    fingerprint=st.sampled_from(["1" * 32, "1" * 32, "2" * 32]),
    payload=st.sampled_from([bytes(20), bytes(20), bytes(100)]),
    cost=st.sampled_from([4, 1, 16, 24]),
    priority=st.sampled_from([Priority.STANDARD, Priority.STANDARD, *Priority]),
    timeout_ms=st.sampled_from([600_000, 30_000, 1_000]),
    resume_window_ms=st.sampled_from([0, 0, 5_000]),
    wanted_to_deadline=st.booleans(),
    trace=st.sampled_from(["", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
    retained=st.booleans(),
    watcher=st.sampled_from(["f1", "f1", "f2", ""]),
)


class Rig:
    """One connection to one server, reused by all examples. `clocked_scripts` must be in force."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.redis = ClockedRedis.on(url, self.clock)
        self.queue = JobQueue(self.redis, LIMITS)
        self.listener = self.run(Listener.on(url, FRONTENDS))

    def run(self, call: Awaitable[Any]) -> Any:
        return self.runner.get_loop().run_until_complete(call)

    def reset(self) -> None:
        self.clock.now = START_MS
        self.run(self.redis.flushall())
        self.run(self.listener.heard())

    def close(self) -> None:
        self.run(self.listener.close())
        self.run(self.redis.aclose())
        self.runner.close()
