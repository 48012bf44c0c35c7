"""What is served, by whom, and how busy it is."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration

from millrace.queue import JobQueue, ModelEntry, WorkerEntry
from millrace.v1.fleet_pb2 import ListModelsResponse, ListWorkersResponse, Model, Worker
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.models import READY, Models
from services.frontend.readiness import Readiness

SERVICE = "millrace.v1.FleetService"
STATES = {"loading": Worker.STATE_LOADING, READY: Worker.STATE_READY, "draining": Worker.STATE_DRAINING}


class Fleet:
    """millrace.v1.FleetService."""

    def __init__(self, queue: JobQueue, models: Models, readiness: Readiness) -> None:
        self._queue, self._models, self._readiness = queue, models, readiness

    def methods(self, border: Border) -> dict[str, Method]:
        return {
            "ListModels": border.unary(f"{SERVICE}/ListModels", self.list_models),
            "ListWorkers": border.unary(f"{SERVICE}/ListWorkers", self.list_workers, admin=True),
        }

    async def list_models(self, _raw: bytes, call: Call) -> ListModelsResponse:
        self._readiness.require()
        versions: dict[str, list[ModelEntry]] = defaultdict(list)
        for entry in await self._models.models():
            if call.caller.policy.allows(entry.name):
                versions[entry.name].append(entry)
        models = [self._model(name, entries) for name, entries in sorted(versions.items())]
        return ListModelsResponse(models=await asyncio.gather(*models))

    async def list_workers(self, _raw: bytes, _call: Call) -> ListWorkersResponse:
        self._readiness.require()
        return ListWorkersResponse(workers=[_worker(entry) for entry in await self._models.workers()])

    async def _model(self, name: str, entries: list[ModelEntry]) -> Model:
        loads = await asyncio.gather(*(self._queue.load(entry.model) for entry in entries))
        served = {str(entry.model) for entry in entries}
        workers = await self._models.workers()
        model = Model(
            name=name,
            versions=[entry.version for entry in entries],
            task=entries[-1].task,
            ready_workers=sum(worker.state == READY and not served.isdisjoint(worker.models) for worker in workers),
            waiting_jobs=sum(round(load["jobs"]) for load in loads),
            running_jobs=sum(round(load["running"]) for load in loads),
            context_length=max(entry.context_length for entry in entries),
        )
        waits = [wait for load in loads if (wait := estimated_wait_s(load)) is not None]
        if len(waits) == len(loads):
            model.estimated_wait.CopyFrom(_duration(max(waits, default=0.0)))
        return model


def estimated_wait_s(load: Mapping[str, float]) -> float | None:
    """What a job submitted now at standard priority would wait, by `JobQueue.load`; None where work waits and no rate
    was seen yet."""
    if not load["standard_cost"]:
        return 0.0
    return load["standard_cost"] / load["capacity"] if load["capacity"] else None


def _worker(entry: WorkerEntry) -> Worker:
    return Worker(
        worker_id=entry.worker_id,
        device=entry.device,
        execution_provider=entry.execution_provider,
        state=STATES.get(entry.state, Worker.STATE_UNSPECIFIED),
        models=entry.models,
        running_jobs=entry.running_jobs,
        free_slots=entry.free_slots,
        memory_used_bytes=entry.memory_used_bytes,
        memory_total_bytes=entry.memory_total_bytes,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration
