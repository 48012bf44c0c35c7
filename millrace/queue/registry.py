"""Who is alive and what is served: two hashes whose entries expire one by one.

Workers announce themselves each second and vanish after `WORKER_MS`; a model stays known for a week after its last
worker, so that its queue may wait for a fleet that was scaled to zero, unless it was unloaded on purpose.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, TypeVar

from millrace.errors import Unavailable
from millrace.queue import keys, scripts
from millrace.queue.connection import AWAY, Redis, RedisError, repeated
from millrace.queue.entries import Entries
from millrace.queue.keys import ModelVersion
from millrace.tensors import TensorSpec

T = TypeVar("T")
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


class ModelState(StrEnum):
    """How a model version stands on one worker, in the words of the Open Inference Protocol's extensions."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    """It takes no new jobs, and is gone when those that wait or run are done."""
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """A model version in a worker's repository."""

    name: str
    version: str
    """Empty where the model as a whole is meant."""
    state: ModelState
    reason: str = ""
    """Why it is in this state, or, while it is ready, why it is not what its files say now."""

    @property
    def model(self) -> ModelVersion:
        return ModelVersion(self.name, self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The last command about a model that a worker has carried out."""

    name: str
    serial: int
    failure: str = ""
    """Why it could not; what was served before is served still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEntry:
    """A live worker, the versions in its repository, and the commands that it has carried out."""

    worker_id: str
    device: str
    execution_provider: str
    state: str
    """loading, ready or draining."""
    repository: str = "models"
    index: tuple[Indexed, ...] = ()
    carried: tuple[Carried, ...] = ()
    running_jobs: int = 0
    free_slots: int = 0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        """The NAME/VERSION that it is ready for."""
        return tuple(str(one.model) for one in self.index if one.state is ModelState.READY)


class Registry:
    """Raises `Unavailable` where Redis is away. An entry that cannot be read is as if it were not there."""

    def __init__(self, redis: Redis) -> None:
        self._redis, self._entries = redis, Entries()

    async def announce(self, worker: WorkerEntry, models: Sequence[ModelEntry]) -> None:
        """Says that a worker lives and what it serves; repeated each second. Whoever reads the workers first, and then
        the models, knows each model that a worker is ready for."""
        if models:
            await self._write(keys.MODELS, MODEL_MS, {str(entry.model): _pack(entry) for entry in models})
        await self._write(keys.WORKERS, WORKER_MS, {worker.worker_id: _pack(worker)})

    async def leave(self, worker_id: str) -> None:
        await self._write(keys.WORKERS, 0, {worker_id: ""})

    async def forget(self, models: Iterable[ModelVersion]) -> None:
        """Models that were unloaded on purpose: nobody waits for a worker that has them."""
        if names := [str(model) for model in models]:
            await self._write(keys.MODELS, 0, dict.fromkeys(names, ""))

    async def workers(self) -> list[WorkerEntry]:
        return await self._read(keys.WORKERS, _worker)

    async def models(self) -> list[ModelEntry]:
        return await self._read(keys.MODELS, _model)

    async def _write(self, key: str, lifetime_ms: int, entries: dict[str, str]) -> None:
        flat = [part for entry in entries.items() for part in entry]
        try:
            await scripts.run(self._redis, "announce", key, lifetime_ms, *flat, call=repeated)
        except (*AWAY, RedisError) as error:
            raise Unavailable("the registry is not reachable", reason="QUEUE_AWAY") from error

    async def _read(self, key: str, make: Callable[[dict[str, Any]], T]) -> list[T]:
        try:
            seconds, _ = await repeated(self._redis.time)
            stored: Any = await repeated(self._redis.hgetall, key)
        except (*AWAY, RedisError) as error:
            raise Unavailable("the registry is not reachable", reason="QUEUE_AWAY") from error

        def parse(value: bytes) -> T | None:
            expiry_ms, text = value.split(b" ", 1)
            return make(json.loads(text)) if int(expiry_ms) > seconds * 1000 else None

        return [entry for entry in self._entries.read(key, stored, parse).values() if entry is not None]


def _pack(entry: ModelEntry | WorkerEntry) -> str:
    return json.dumps(asdict(entry), separators=(",", ":"))


def _worker(entry: dict[str, Any]) -> WorkerEntry:
    index = tuple(Indexed(**(one | {"state": ModelState(one["state"])})) for one in entry.get("index", ()))
    carried = tuple(Carried(**one) for one in entry.get("carried", ()))
    return WorkerEntry(**(_known(WorkerEntry, entry) | {"index": index, "carried": carried}))


def _model(entry: dict[str, Any]) -> ModelEntry:
    tensors = {
        kind: tuple(TensorSpec(spec["name"], spec["datatype"], tuple(spec["shape"])) for spec in entry[kind])
        for kind in ("inputs", "outputs")
    }
    return ModelEntry(**(_known(ModelEntry, entry) | tensors))


def _known(kind: type[ModelEntry | WorkerEntry], entry: dict[str, Any]) -> dict[str, Any]:
    """Without what only a later version of this service knows: while a fleet is renewed, both are in it."""
    names = {field.name for field in fields(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items() if name in names}
