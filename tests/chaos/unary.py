"""Unary calls as any gRPC program makes them: a plain channel, with the published service config and nothing else."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import grpc.aio
import numpy as np

from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.v1.fleet_pb2 import ListModelsRequest
from millrace.v1.fleet_pb2_grpc import FleetServiceStub
from millrace.v1.generation_pb2 import GenerateRequest, Stopping
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import CancelJobRequest, GetJobRequest, Job, SubmitJobRequest
from millrace.v1.job_service_pb2_grpc import JobServiceStub

if TYPE_CHECKING:
    from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceAsyncStub
    from millrace.v1.fleet_pb2_grpc import FleetServiceAsyncStub
    from millrace.v1.job_service_pb2_grpc import JobServiceAsyncStub

T = TypeVar("T")
Options: TypeAlias = tuple[tuple[str, Any], ...]
ROOT = Path(__file__).parents[2]
SERVICE_CONFIG = ROOT / "protos" / "service_config.json"
DIGITS = ROOT / "models" / "digits"
DEADLINE_S = 20.0
"""A call that takes longer hangs."""
TOLD = 5


def published() -> Options:
    """The channel's options of a caller that has read the README."""
    return (("grpc.service_config", SERVICE_CONFIG.read_text()), ("grpc.enable_retries", 1))


@dataclass(slots=True, kw_only=True)
class Answers:
    """What one group of callers has seen."""

    right: int = 0
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


class Callers:
    """A steady load of unary calls, one kind after the other, each answer checked."""

    def __init__(self, name: str, target: str, options: Options) -> None:
        self.name, self.answers = name, Answers()
        options = (*options, ("grpc.use_local_subchannel_pool", 1))
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self._tensors: GRPCInferenceServiceAsyncStub = GRPCInferenceServiceStub(self._channel)
        self._jobs: JobServiceAsyncStub = JobServiceStub(self._channel)
        self._fleet: FleetServiceAsyncStub = FleetServiceStub(self._channel)
        with np.load(DIGITS / "held_out.npz") as held_out:
            self._images, self._labels = held_out["x"].astype("<f4"), held_out["label"].tolist()

    async def run(self, rate: float, over: asyncio.Event) -> None:
        """Begins `rate` operations a second until `over` is set, and waits for the last of them."""
        kinds = (self._infer, self._submit_and_get, self._infer_named, self._infer, self._cancel, self._list)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self._channel, asyncio.TaskGroup() as tasks:
            for number, kind in enumerate(itertools.cycle(kinds)):
                await asyncio.sleep(began + number / rate - loop.time())
                if over.is_set():
                    return
                tasks.create_task(self._note(kind, number))

    async def _note(self, kind: Callable[[int], Awaitable[bool]], number: int) -> None:
        try:
            right = await kind(number)
        except grpc.aio.AioRpcError as error:
            self.answers.failures.append(f"{kind.__name__[1:]}: {error.code().name}: {error.details()}")
            return
        if right:
            self.answers.right += 1
        else:
            self.answers.failures.append(f"{kind.__name__[1:]}: a wrong answer")

    async def _timed(self, call: Awaitable[T]) -> T:
        began = time.monotonic()
        answer = await call
        self.answers.latencies.append(time.monotonic() - began)
        return answer

    async def _infer(self, number: int) -> bool:
        return await self._classify(number, ModelInferRequest(model_name="digits"))

    async def _infer_named(self, number: int) -> bool:
        request = ModelInferRequest(model_name="digits")
        request.parameters["millrace_job_id"].string_param = f"{self.name}-{number}"
        return await self._classify(number, request)

    async def _classify(self, number: int, request: ModelInferRequest) -> bool:
        image = self._images[number % len(self._images)]
        request.inputs.add(name="x", datatype="FP32", shape=(1, *image.shape))
        request.outputs.add(name="label")
        request.raw_input_contents.append(image.tobytes())
        answer = await self._timed(self._tensors.ModelInfer(request, timeout=DEADLINE_S))
        label: int = self._labels[number % len(self._labels)]
        return int.from_bytes(answer.raw_output_contents[0], "little") == label

    async def _submit_and_get(self, number: int) -> bool:
        job_id = await self._submit(number, max_tokens=2)
        job = await self._timed(self._jobs.GetJob(GetJobRequest(job_id=job_id), timeout=DEADLINE_S))
        return job.job_id == job_id and job.state in (Job.STATE_WAITING, Job.STATE_RUNNING, Job.STATE_SUCCEEDED)

    async def _cancel(self, number: int) -> bool:
        job_id = await self._submit(number, max_tokens=1_000)
        job = await self._timed(self._jobs.CancelJob(CancelJobRequest(job_id=job_id), timeout=DEADLINE_S))
        return job.job_id == job_id and job.state == Job.STATE_CANCELLED

    async def _submit(self, number: int, *, max_tokens: int) -> str:
        task = GenerateRequest(model="stub", text="go on", stopping=Stopping(max_tokens=max_tokens))
        job_id = f"{self.name}-{number}"
        request = SubmitJobRequest(generate=task, job=JobOptions(job_id=job_id))
        await self._timed(self._jobs.SubmitJob(request, timeout=DEADLINE_S))
        return job_id

    async def _list(self, _: int) -> bool:
        answer = await self._timed(self._fleet.ListModels(ListModelsRequest(), timeout=DEADLINE_S))
        return [model.name for model in answer.models] == ["digits", "stub"]


def told(name: str, answers: Answers) -> list[str]:
    """A sentence where not every operation has succeeded."""
    failures = answers.failures
    if not failures:
        return []
    kinds = sorted(set(failures))
    return [f"{len(failures)} operations of {name} failed: {'; '.join(kinds[:TOLD])}"]
