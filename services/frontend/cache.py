"""Answers that are given again: to a request that equals an earlier one of the same tenant, byte for byte.

The key is the whole SHA-256 of what the answer depends on: the tenant, the model version and the digest of its files,
and the request without its id and without what says how its job runs. Only single answers of models whose file allows
it are kept, never errors, and never those of named jobs, which have a life of their own. What was not used for longest
goes first.

Equal requests at the same time all run: there is no waiting for each other's answers. Where workers disagree on a
version's files, as while they are replaced, nothing of it is kept or given until they have agreed for a while.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import prometheus_client

from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.queue import ModelEntry, ModelTotals, ModelVersion, Spent
from services.frontend.metrics import Metrics
from services.frontend.oip.infer import HOW, AskedInfer
from services.frontend.parse import ValidRequest

OVERHEAD_BYTES = 400
"""Of an entry, its answer aside."""
LARGEST_SHARE = 4
"""An answer that would take more than this part of the cache is not kept."""
HASHED_HERE_BYTES = 256 << 10
"""Larger requests are hashed on a thread of their own."""
SETTLE_S = 10.0
"""How long a version must have had the same digest after it has changed: twice what a dead worker is still heard."""


class Lookup:
    """`answer` is None where there is none; what the model then answers is handed to `keep`."""

    answer: bytes | None = None

    def keep(self, answer: bytes) -> None:
        """Of a request that is not cached: nothing."""


class Hit(Lookup):
    def __init__(self, answer: bytes) -> None:
        self.answer = answer


class Miss(Lookup):
    def __init__(self, cache: "ResponseCache", key: bytes, entry: ModelEntry) -> None:
        self._cache, self._key, self._entry = cache, key, entry

    def keep(self, answer: bytes) -> None:
        self._cache.put(self._key, self._entry, answer)


@dataclass(frozen=True, slots=True)
class Kept:
    model: ModelVersion
    answer: bytes

    @property
    def size(self) -> int:
        return len(self.answer) + OVERHEAD_BYTES


class ResponseCache:
    """Of one frontend, of at most `max_bytes`; 0: none."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._digests: dict[ModelVersion, str] = {}
        self._changed_at: dict[ModelVersion, float] = {}
        self._hits: dict[ModelVersion, Spent] = {}
        self._misses: dict[ModelVersion, Spent] = {}
        self._lookups = prometheus_client.Counter(
            "millrace_frontend_cache_lookups",
            "requests that were looked for in the response cache, by what came of it: hit or miss",
            ["model", "outcome"],
            registry=metrics.registry,
        )
        size = prometheus_client.Gauge(
            "millrace_frontend_cache_bytes", "what the response cache holds", registry=metrics.registry
        )
        size.set_function(lambda: self._bytes)

    @property
    def enabled(self) -> bool:
        return self._max_bytes > 0

    async def look_up(self, tenant: str, entry: ModelEntry | None, request: AskedInfer | ValidRequest) -> Lookup:
        """Before the request is submitted to `entry`: the model that would run it; None where its job is there."""
        if not self.enabled or entry is None or not entry.response_cache or request.options.job_id:
            return Lookup()
        if not self._is_settled(entry):
            return Lookup()
        began = time.perf_counter_ns()
        key = await _key(tenant, entry, request)
        kept = self._kept.get(key)
        self._count(entry.model, hit=kept is not None, ns=time.perf_counter_ns() - began)
        if kept is None:
            return Miss(self, key, entry)
        self._kept.move_to_end(key)
        return Hit(kept.answer)

    def put(self, key: bytes, entry: ModelEntry, answer: bytes) -> None:
        """Keeps an answer of the model, if it still is what it was."""
        kept = Kept(entry.model, answer)
        if self._digests.get(entry.model) != entry.digest or not self._is_settled(entry):
            return
        if kept.size > self._max_bytes // LARGEST_SHARE:
            return
        self._drop(key)
        self._kept[key] = kept
        self._bytes += kept.size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def statistics(self) -> dict[ModelVersion, ModelTotals]:
        """A hit is a success of the model."""
        hits, misses = self._hits, self._misses
        return {
            model: ModelTotals(
                success=hits.get(model, Spent()),
                cache_hit=hits.get(model, Spent()),
                cache_miss=misses.get(model, Spent()),
            )
            for model in self._digests
        }

    def _is_settled(self, entry: ModelEntry) -> bool:
        """Drops what is known of the model where its digest is another one than before."""
        known = self._digests.setdefault(entry.model, entry.digest)
        if known != entry.digest:
            self._digests[entry.model], self._changed_at[entry.model] = entry.digest, time.monotonic()
            for key in [key for key, kept in self._kept.items() if kept.model == entry.model]:
                self._drop(key)
        changed_at = self._changed_at.get(entry.model)
        return changed_at is None or time.monotonic() - changed_at > SETTLE_S

    def _drop(self, key: bytes) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self._bytes -= kept.size

    def _count(self, model: ModelVersion, *, hit: bool, ns: int) -> None:
        counted = self._hits if hit else self._misses
        counted[model] = counted.get(model, Spent()) + Spent(1, ns)
        self._lookups.labels(str(model), "hit" if hit else "miss").inc()


async def _key(tenant: str, entry: ModelEntry, request: AskedInfer | ValidRequest) -> bytes:
    if len(request.payload) > HASHED_HERE_BYTES:
        return await asyncio.to_thread(_hash, tenant, entry, request)
    return _hash(tenant, entry, request)


def _hash(tenant: str, entry: ModelEntry, request: AskedInfer | ValidRequest) -> bytes:
    """Each part behind its length, so that no two lists of parts look alike."""
    digest = hashlib.sha256()
    names = (tenant, entry.name, entry.version, entry.digest)
    for part in (*(name.encode() for name in names), *_parts(request)):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _parts(request: AskedInfer | ValidRequest) -> Iterator[bytes]:
    """What the answer depends on."""
    if isinstance(request, ValidRequest):
        yield from (request.task.encode(), request.payload)
        return
    message = request.message
    bare = ModelInferRequest(inputs=message.inputs, outputs=message.outputs)
    for name, value in message.parameters.items():
        if name not in HOW:
            bare.parameters[name].CopyFrom(value)
    yield from (b"infer", bare.SerializeToString(deterministic=True), *message.raw_input_contents)
