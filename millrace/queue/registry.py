"""Who is alive and what is served: two hashes whose entries expire one by one.

Workers announce themselves each second and vanish after `WORKER_MS`; a model stays known for a week after its last
worker, so that its queue may wait for a fleet that was scaled to zero.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from millrace.errors import Unavailable
from millrace.queue import keys, scripts
from millrace.queue.connection import AWAY, Redis, RedisError, repeated
from millrace.queue.keys import ModelVersion
from millrace.tensors import TensorSpec

WORKER_MS = 5_000
MODEL_MS = 7 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A served model version."""

    name: str
    version: str
    task: str
    digest: str
    """SHA-256 over the model's files."""
    description: str = ""
    context_length: int = 0
    """Longest prompt plus output in tokens; 0 where that means nothing."""
    platform: str = ""
    """What runs it, as the Open Inference Protocol names it."""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    """Its tensors; none where its requests are not tensors."""
    max_batch_size: int = 0
    """Rows that one request may have; 0: the first dimension of its tensors is not a batch."""
    tasks: tuple[str, ...] = ()
    """What kinds of requests it takes, by their fields in SubmitJobRequest; where nothing is said, "infer" of a model
    with tensors, "generate" of another."""
    engine: str = ""
    instances: int = 1
    """Runs at once on one worker."""
    batch_delay_ms: float = 0.0
    preferred_rows: tuple[int, ...] = ()
    response_cache: bool = False
    """Whether frontends may answer a request that equals an earlier one out of their cache."""

    def __post_init__(self) -> None:
        if not self.tasks:
            object.__setattr__(self, "tasks", ("infer",) if self.outputs else ("generate",))

    @property
    def model(self) -> ModelVersion:
        return ModelVersion(self.name, self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEntry:
    """A live worker. `models` are the NAME/VERSION it is ready for; `broken` says which folders it could not load."""

    worker_id: str
    device: str
    execution_provider: str
    state: str
    """loading, ready or draining."""
    models: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    running_jobs: int = 0
    free_slots: int = 0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0


class Registry:
    """Raises `Unavailable` where Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def announce(self, worker: WorkerEntry, models: Sequence[ModelEntry]) -> None:
        """Says that a worker lives and what it serves; repeated each second."""
        await self._write(keys.WORKERS, WORKER_MS, {worker.worker_id: _pack(worker)})
        if models:
            await self._write(keys.MODELS, MODEL_MS, {str(entry.model): _pack(entry) for entry in models})

    async def leave(self, worker_id: str) -> None:
        await self._write(keys.WORKERS, 0, {worker_id: ""})

    async def workers(self) -> list[WorkerEntry]:
        return [WorkerEntry(**_tuples(fields)) for fields in await self._read(keys.WORKERS)]

    async def models(self) -> list[ModelEntry]:
        return [_model(fields) for fields in await self._read(keys.MODELS)]

    async def _write(self, key: str, lifetime_ms: int, entries: dict[str, str]) -> None:
        flat = [part for entry in entries.items() for part in entry]
        try:
            await scripts.run(self._redis, "announce", key, lifetime_ms, *flat, call=repeated)
        except (*AWAY, RedisError) as error:
            raise Unavailable("the registry is not reachable", reason="QUEUE_AWAY") from error

    async def _read(self, key: str) -> list[dict[str, Any]]:
        try:
            seconds, _ = await repeated(self._redis.time)
            stored: Any = await repeated(self._redis.hgetall, key)
        except (*AWAY, RedisError) as error:
            raise Unavailable("the registry is not reachable", reason="QUEUE_AWAY") from error
        entries = (value.split(b" ", 1) for _, value in sorted(stored.items()))
        return [json.loads(text) for expiry, text in entries if int(expiry) > seconds * 1000]


def _pack(entry: ModelEntry | WorkerEntry) -> str:
    return json.dumps(asdict(entry), separators=(",", ":"))


def _model(fields: dict[str, Any]) -> ModelEntry:
    tensors = {
        kind: tuple(TensorSpec(spec["name"], spec["datatype"], tuple(spec["shape"])) for spec in fields[kind])
        for kind in ("inputs", "outputs")
    }
    return ModelEntry(**(_tuples(fields) | tensors))


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
