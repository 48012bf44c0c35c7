"""The model repository, as Triton's extension of the Open Inference Protocol has it: what is in it, load, unload.

A command is written down once, and every worker of the repository carries it out, also one that starts later. The call
waits for those that live.
"""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Mapping

from google.protobuf.message import Message

from millrace.errors import Code, InvalidRequest, MillraceError, NotFound, Unavailable, Violation
from millrace.oip.inference_pb2 import (
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
)
from millrace.queue import Carried, Commands, Indexed, ModelState, ModelVersion, Verb, WorkerEntry
from millrace.queue.commands import ALL
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.models import Models
from services.frontend.oip.inference import SERVICE
from services.frontend.parse import decode
from services.frontend.readiness import Readiness
from services.frontend.rules import Bounds

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LONGEST_S = 600.0
"""What a call without a deadline waits."""
MARGIN_S = 0.3
"""How long before its caller's deadline a call says what it still waits for."""
GLANCE_S = 0.1
DRAINING = "draining"
HOPE = (ModelState.READY, ModelState.LOADING, ModelState.UNLOADING, ModelState.UNAVAILABLE)
"""Of several workers' states the first that one has is the model's."""


class NotCarriedOut(MillraceError):
    """Workers could not do what they were told."""

    code = Code.FAILED_PRECONDITION


class StillAtIt(MillraceError):
    """The command stands, and its caller's time is up."""

    code = Code.DEADLINE_EXCEEDED


class Repository:
    """The part of inference.GRPCInferenceService that shows and commands which models are loaded."""

    def __init__(
        self, models: Models, commands: Commands, readiness: Readiness, bounds: Bounds, *, commanded: bool
    ) -> None:
        """`commanded`: whether callers may load and unload."""
        self._models, self._commands, self._readiness, self._bounds = models, commands, readiness, bounds
        self._commanded = commanded

    def methods(self, border: Border) -> dict[str, Method]:
        return {
            "RepositoryIndex": border.unary(f"{SERVICE}/RepositoryIndex", self.index),
            "RepositoryModelLoad": border.unary(f"{SERVICE}/RepositoryModelLoad", self.load, admin=True),
            "RepositoryModelUnload": border.unary(f"{SERVICE}/RepositoryModelUnload", self.unload, admin=True),
        }

    async def index(self, raw: bytes, call: Call) -> RepositoryIndexResponse:
        request = decode(RepositoryIndexRequest, raw, self._bounds.max_request_bytes)
        self._readiness.require()
        workers = await self._models.workers()
        if request.repository_name:
            workers = [worker for worker in workers if worker.repository == request.repository_name]
            if not workers:
                raise _no_repository(request.repository_name)
        known, policy = sorted(_by_model(workers).items()), call.caller.policy
        merged = [_merge(model, seen) for model, seen in known if policy.allows(model.name)]
        wanted = [one for one in merged if not request.ready or one.state == ModelState.READY]
        return RepositoryIndexResponse(models=wanted)

    async def load(self, raw: bytes, call: Call) -> RepositoryModelLoadResponse:
        """Also a model whose folder is new."""
        request = decode(RepositoryModelLoadRequest, raw, self._bounds.max_request_bytes)
        _check(request.model_name, request.parameters, ())
        until = _until(call)
        workers = await self._workers(request.repository_name)
        if not _knowing(workers, request.model_name):
            serials = {name: await self._commands.give(name, ALL, Verb.LOOK) for name in _repositories(workers)}
            await self._carried_out(serials, ALL, until)
            workers = await self._workers(request.repository_name)
        await self._command(workers, request.model_name, Verb.LOAD, until)
        return RepositoryModelLoadResponse()

    async def unload(self, raw: bytes, call: Call) -> RepositoryModelUnloadResponse:
        """Jobs that were accepted before are done first."""
        request = decode(RepositoryModelUnloadRequest, raw, self._bounds.max_request_bytes)
        _check(request.model_name, request.parameters, ("unload_dependents",))
        until = _until(call)
        workers = await self._workers(request.repository_name)
        await self._command(workers, request.model_name, Verb.UNLOAD, until)
        await self._models.forget(request.model_name)
        return RepositoryModelUnloadResponse()

    async def _workers(self, repository: str) -> list[WorkerEntry]:
        """Those that carry out commands about this repository, or any."""
        if not self._commanded:
            raise NotCarriedOut("this frontend loads and unloads nothing for callers", reason="MODEL_CONTROL_OFF")
        self._readiness.require()
        workers = [worker for worker in await self._models.workers() if worker.state != DRAINING]
        if not workers:
            raise Unavailable("no worker is there to load or unload a model", reason="NO_WORKER")
        workers = [worker for worker in workers if repository in ("", worker.repository)]
        if not workers:
            raise _no_repository(repository)
        return workers

    async def _command(self, workers: list[WorkerEntry], name: str, verb: Verb, until: float) -> None:
        """In every repository that has the model."""
        knowing = _knowing(workers, name)
        if not knowing:
            raise NotFound(f"there is no model {name} in the repository", reason="MODEL_UNKNOWN")
        serials = {repository: await self._commands.give(repository, name, verb) for repository in knowing}
        failures = await self._carried_out(serials, name, until)
        if failures:
            told = "; ".join(f"{worker}: {failure}" for worker, failure in sorted(failures.items()))
            raise NotCarriedOut(told, reason=f"MODEL_{verb.upper()}_FAILED")

    async def _carried_out(self, serials: Mapping[str, int], name: str, until: float) -> dict[str, str]:
        """Waits for every worker that lives; answers the failures by worker."""
        while True:
            workers = [worker for worker in await self._models.workers() if worker.repository in serials]
            workers = [worker for worker in workers if worker.state != DRAINING]
            missing = serials.keys() - {worker.repository for worker in workers}
            if missing:
                text = f"no worker of repository {min(missing)} is there any more; the command stands"
                raise Unavailable(text, reason="NO_WORKER")
            done = {worker.worker_id: _carried(worker, name, serials[worker.repository]) for worker in workers}
            late = sorted(worker for worker, carried in done.items() if carried is None)
            if not late:
                return {worker: carried.failure for worker, carried in done.items() if carried and carried.failure}
            if time.monotonic() >= until:
                raise StillAtIt(f"still at it: {', '.join(late)}; the command stands", reason="STILL_AT_IT")
            await asyncio.sleep(GLANCE_S)


def _check(name: str, parameters: Mapping[str, Message], ignored: tuple[str, ...]) -> None:
    violations = []
    if not NAME.fullmatch(name):
        violations.append(Violation("model_name", f"must match {NAME.pattern}"))
    for parameter in sorted(set(parameters) - set(ignored)):
        text = "is not supported: what a model is stands in its folder"
        violations.append(Violation(f"parameters[{parameter}]", text))
    if violations:
        raise InvalidRequest(violations)


def _until(call: Call) -> float:
    remaining = LONGEST_S if call.remaining_s is None else min(call.remaining_s - MARGIN_S, LONGEST_S)
    return time.monotonic() + remaining


def _repositories(workers: list[WorkerEntry]) -> list[str]:
    return sorted({worker.repository for worker in workers})


def _knowing(workers: list[WorkerEntry], name: str) -> list[str]:
    """The repositories that have a model of this name."""
    return _repositories([worker for worker in workers if any(one.name == name for one in worker.index)])


def _carried(worker: WorkerEntry, name: str, serial: int) -> Carried | None:
    return next((one for one in worker.carried if one.name == name and one.serial >= serial), None)


def _by_model(workers: list[WorkerEntry]) -> dict[ModelVersion, dict[str, Indexed]]:
    """What each worker says of each version."""
    models: dict[ModelVersion, dict[str, Indexed]] = defaultdict(dict)
    for worker in workers:
        for one in worker.index:
            models[one.model][worker.worker_id] = one
    return models


def _merge(model: ModelVersion, seen: dict[str, Indexed]) -> RepositoryIndexResponse.ModelIndex:
    state = next(state for state in HOPE if any(one.state is state for one in seen.values()))
    reasons = {worker: one.reason for worker, one in seen.items() if one.reason}
    reason = "; ".join(f"{worker}: {text}" for worker, text in sorted(reasons.items()))
    if len(reasons) == len(seen) and len(set(reasons.values())) == 1:
        reason = next(iter(reasons.values()))
    return RepositoryIndexResponse.ModelIndex(name=model.name, version=model.version, state=state, reason=reason)


def _no_repository(name: str) -> NotFound:
    return NotFound(f"no worker has a repository called {name}", reason="REPOSITORY_UNKNOWN")
