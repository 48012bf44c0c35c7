"""What the page is told of the fleet, as one line of JSON.

Counts grow from the start of the process that counts; the page takes differences. `work` is what a model's runs have
done on all workers together: tokens of one that generates, rows of another.
"""

import asyncio
import time
from typing import Any

from prometheus_client import Counter, Gauge

from millrace.errors import Unavailable
from millrace.queue import JobQueue, ModelEntry, ModelTotals, Statistics, WorkerEntry
from services.frontend.fleet_metrics import ModelNow
from services.frontend.metrics import Metrics
from services.frontend.models import READY, Models
from services.frontend.openai.fields import to_json
from services.frontend.readiness import Readiness

MOST_MODELS, MOST_WORKERS = 100, 200
"""Listed one by one; those beyond are counted."""
DESCRIPTION_CHARACTERS = 300
ANSWER_S = 2.0


class Snapshots:
    """Of the fleet, and of this frontend's own counts."""

    def __init__(
        self,
        queue: JobQueue,
        models: Models,
        totals: Statistics,
        readiness: Readiness,
        metrics: Metrics,
        *,
        frontend_id: str,
        openai: bool,
    ) -> None:
        self._queue, self._models, self._totals = queue, models, totals
        self._readiness, self._metrics = readiness, metrics
        self._frontend_id, self._openai = frontend_id, openai

    async def read(self) -> str:
        """Where Redis is away, or does not answer in time, that and the frontend's own counts."""
        frontend = self._frontend()
        try:
            self._readiness.require()
            async with asyncio.timeout(ANSWER_S):
                fleet = await self._fleet()
        except Unavailable as error:
            fleet = {"problem": error.message}
        except TimeoutError:
            fleet = {"problem": "the queue does not answer in time"}
        return to_json({"at_ms": time.time_ns() // 1_000_000, "frontend": frontend} | fleet)

    def _frontend(self) -> dict[str, Any]:
        metrics = self._metrics
        return {
            "id": self._frontend_id,
            "openai": self._openai,
            "draining": self._readiness.draining,
            "streams": _count(metrics.streams),
            "results": _count(metrics.results),
            "submitted": _count(metrics.submitted),
            "refused": _count(metrics.refused),
        }

    async def _fleet(self) -> dict[str, Any]:
        entries, ready = await self._models.models(), await self._models.ready_workers()
        workers = await self._models.workers()
        listed = entries[:MOST_MODELS]
        done = await self._totals.read(entry.model for entry in listed)
        described = (self._model(entry, ready[str(entry.model)], done[entry.model]) for entry in listed)
        return {
            "models": await asyncio.gather(*described),
            "num_models": len(entries),
            "workers": [_worker(entry) for entry in workers[:MOST_WORKERS]],
            "num_workers": len(workers),
            "ready_workers": sum(worker.state == READY for worker in workers),
        }

    async def _model(self, entry: ModelEntry, ready_workers: int, done: ModelTotals) -> dict[str, Any]:
        load = await self._queue.load(entry.model)
        now = ModelNow(ready_workers=ready_workers, load=load, totals=done)
        return {
            "name": entry.name,
            "version": entry.version,
            "task": entry.task,
            "tasks": entry.tasks,
            "description": entry.description[:DESCRIPTION_CHARACTERS],
            "context_length": entry.context_length,
            "ready_workers": ready_workers,
            "waiting": round(load["jobs"]),
            "running": round(load["running"]),
            "wait_s": now.estimated_wait_s,
            "work": now.run_rows,
            "jobs": done.success.count + done.failure.count + done.cancelled.count,
        }


def _worker(entry: WorkerEntry) -> dict[str, Any]:
    return {
        "id": entry.worker_id,
        "device": entry.device,
        "provider": entry.execution_provider,
        "state": entry.state,
        "models": entry.models[:MOST_MODELS],
        "running": entry.running_jobs,
        "free": entry.free_slots,
        "memory_used": entry.memory_used_bytes,
        "memory_total": entry.memory_total_bytes,
    }


def _count(metric: Counter | Gauge) -> int:
    """Over all its labels."""
    samples = (sample for family in metric.collect() for sample in family.samples)
    return round(sum(sample.value for sample in samples if not sample.name.endswith("_created")))
