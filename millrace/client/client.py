"""The client that Python programs use."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, Unpack

import grpc.aio

from millrace.client.calls import UNARY_S, Calls
from millrace.client.follow import Place
from millrace.client.frontends import Frontend
from millrace.client.infer import Arrays, Deadline, Inputs, check_kind, set_job
from millrace.client.metadata import ApiKey
from millrace.client.request import GenerateOptions, PriorityName, Prompt, make_job_options, make_request
from millrace.client.results import Completion, Delta, to_completion, to_delta
from millrace.client.tls import Tls
from millrace.client.typed import TypedTasks
from millrace.oip.inference_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.v1.fleet_pb2 import ListModelsRequest, ListWorkersRequest, Model, Worker
from millrace.v1.fleet_pb2_grpc import FleetServiceStub
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_service_pb2 import GetJobRequest, Job, JobResult, SubmitJobRequest, WatchJobRequest
from millrace.v1.job_service_pb2_grpc import JobServiceStub


class AsyncClient(TypedTasks):
    """Speaks to one or more frontends of one service.

        async with AsyncClient("127.0.0.1:8001", "127.0.0.1:8011") as client:
            async for delta in client.generate("pycode", "def fib(n):", max_tokens=64):
                print(delta.text, end="")

    A stream that loses its frontend goes on through another, or through the same one when it is back: no delta is
    repeated or left out. It gives up when nothing was received for `retry_s` seconds of trying. With `retry_exhausted`
    it also waits, within the same budget, where the service is full. All calls raise the errors of `millrace.errors`.

    `api_key` says whose calls they are, where the service asks: an API key or a JWT, or a function that is asked for it
    before each call, must not block, and may give another each time. A service that does not ask takes `tenant`'s word.

    `tls` is how frontends that speak TLS are known: `Tls(ca="ca.crt")`, or True for the authorities that this machine
    trusts. Entering the client raises ValueError where its files cannot be used.
    """

    def __init__(
        self,
        *addresses: str,
        tenant: str | None = None,
        api_key: ApiKey | None = None,
        tls: Tls | bool = False,
        retry_s: float = 30.0,
        retry_exhausted: bool = False,
    ) -> None:
        self._calls = Calls(
            addresses,
            tenant=tenant,
            api_key=api_key,
            tls=(Tls() if tls else None) if isinstance(tls, bool) else tls,
            retry_s=retry_s,
            retry_exhausted=retry_exhausted,
        )
        self._metadata = self._calls.metadata

    async def __aenter__(self) -> Self:
        self._calls.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()

    async def generate(
        self,
        model: str,
        prompt: Prompt,
        *,
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncGenerator[Delta, None]:
        """Streams a completion as `Delta`s: `.text`, `.token_ids`, `.finish_reason`, `.offset`; `.usage` in the last.

        `job_id` names the job: the same request under the same name attaches to it. `resume_window_s` is how long the
        job is kept for this client while the connection is lost. A stream that is left before its end cancels the job.
        """
        request = make_request(model, prompt, options)
        job = make_job_options(
            job_id or uuid.uuid4().hex, resume_window_s=resume_window_s, timeout_s=timeout_s, priority=priority
        )
        request.job.CopyFrom(job)
        place = Place()

        def begin(frontend: Frontend) -> "grpc.aio.UnaryStreamCall[GenerateRequest, GenerateResponse]":
            request.job.after_offset, request.job.after_history = place.offset, place.history
            return TextGenerationServiceStub(frontend.channel).Generate(request, metadata=self._metadata)

        results = self._calls.follow(begin, place, waits=True)
        try:
            async with aclosing(results):
                async for message in results:
                    yield to_delta(message)
        finally:
            if not (place.ended or place.refused):
                await self._calls.abandon(job.job_id)

    async def generate_text(
        self,
        model: str,
        prompt: Prompt,
        *,
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion:
        """The whole completion at once; otherwise as `generate`."""
        job_id = job_id or uuid.uuid4().hex
        stream = self.generate(
            model,
            prompt,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
            **options,
        )
        return to_completion(job_id, [delta async for delta in stream])

    async def submit(
        self,
        model: str,
        prompt: Prompt,
        *,
        job_id: str | None = None,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Job:
        """Queues a generation that runs to its end, watched or not."""
        job = make_job_options(job_id or uuid.uuid4().hex, timeout_s=timeout_s, priority=priority)
        request = SubmitJobRequest(generate=make_request(model, prompt, options), job=job)
        return await self._calls.ask(
            lambda frontend: JobServiceStub(frontend.channel).SubmitJob(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )

    async def watch(self, job_id: str, *, after_offset: int = 0, after_history: int = 0) -> AsyncGenerator[Delta, None]:
        """Streams a generation's results from after_offset on. Leaving it does not cancel the job."""
        place = Place(offset=after_offset, history=after_history)
        async with aclosing(self._watch(job_id, place)) as results:
            async for result in results:
                check_kind(result, "generated")
                yield to_delta(result.generated)

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] | None = None,
        model_version: str = "",
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
    ) -> Arrays:
        """Runs a model once over named arrays; answers its outputs, or those that `outputs` names.

        Arrays are sent as they are, and nothing is cast: the service says what the model takes instead. A call that
        loses its frontend is made again on another one; with a `job_id` it finds the job that it has started, which is
        kept for `resume_window_s`, without one the model may run twice. A call that is cancelled takes its job along.
        `timeout_s` bounds all of it. It needs the extra `tensors`.
        """
        from millrace.client.tensors import make_infer_request, to_arrays

        request = make_infer_request(model, inputs, outputs, model_version)
        set_job(request, job_id=job_id, resume_window_s=resume_window_s, timeout_s=timeout_s, priority=priority)
        deadline = Deadline(timeout_s)
        try:
            response = await self._calls.ask(
                lambda frontend: GRPCInferenceServiceStub(frontend.channel).ModelInfer(
                    request, metadata=self._metadata, timeout=deadline.left_s
                ),
                retry_late=False,
            )
        except asyncio.CancelledError:
            if job_id is not None:
                await self._calls.abandon(job_id)
            raise
        return to_arrays(response)

    async def submit_infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] | None = None,
        model_version: str = "",
        job_id: str | None = None,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
    ) -> Job:
        """Queues a run that goes on to its end, waited for or not; `infer_result` has its outputs."""
        from millrace.client.tensors import make_infer_request

        job = make_job_options(job_id or uuid.uuid4().hex, timeout_s=timeout_s, priority=priority)
        request = SubmitJobRequest(infer=make_infer_request(model, inputs, outputs, model_version), job=job)
        return await self._calls.ask(
            lambda frontend: JobServiceStub(frontend.channel).SubmitJob(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )

    async def infer_result(self, job_id: str) -> Arrays:
        """Waits for the outputs of a run that was submitted. Leaving it does not cancel the job."""
        from millrace.client.tensors import to_arrays

        response = ModelInferResponse()
        async with aclosing(self._watch(job_id, Place())) as results:
            async for result in results:
                check_kind(result, "inferred")
                response = result.inferred
        return to_arrays(response)

    async def get(self, job_id: str) -> Job:
        """How a job stands."""
        request = GetJobRequest(job_id=job_id)
        return await self._calls.ask(
            lambda frontend: JobServiceStub(frontend.channel).GetJob(request, metadata=self._metadata, timeout=UNARY_S)
        )

    async def cancel(self, job_id: str) -> Job:
        """Stops a job; one that has ended is left as it is."""
        return await self._calls.cancel(job_id)

    async def models(self) -> list[Model]:
        """What is served, by how many workers, and how long a new job would wait."""
        request = ListModelsRequest()
        answer = await self._calls.ask(
            lambda frontend: FleetServiceStub(frontend.channel).ListModels(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )
        return list(answer.models)

    async def model_metadata(self, model: str, model_version: str = "") -> ModelMetadataResponse:
        """What a model takes and gives: names, datatypes and shapes, in which -1 is any size."""
        request = ModelMetadataRequest(name=model, version=model_version)
        return await self._calls.ask(
            lambda frontend: GRPCInferenceServiceStub(frontend.channel).ModelMetadata(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )

    async def model_config(self, model: str, model_version: str = "") -> ModelConfigResponse:
        """How a model is served: its files' digest among the parameters, its versions, batching and instances."""
        request = ModelConfigRequest(name=model, version=model_version)
        return await self._calls.ask(
            lambda frontend: GRPCInferenceServiceStub(frontend.channel).ModelConfig(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )

    async def workers(self) -> list[Worker]:
        """The workers that are alive, and what they are busy with."""
        request = ListWorkersRequest()
        answer = await self._calls.ask(
            lambda frontend: FleetServiceStub(frontend.channel).ListWorkers(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )
        return list(answer.workers)

    async def repository_index(
        self, *, repository: str = "", ready: bool = False
    ) -> list[RepositoryIndexResponse.ModelIndex]:
        """Every version in the repository of the workers, or in the one named: its state, and why it is in it. `ready`:
        only what is served."""
        request = RepositoryIndexRequest(repository_name=repository, ready=ready)
        answer = await self._calls.ask(
            lambda frontend: GRPCInferenceServiceStub(frontend.channel).RepositoryIndex(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )
        return list(answer.models)

    async def load_model(self, model: str, *, repository: str = "", timeout_s: float | None = None) -> None:
        """Has every worker load a model, or load anew what has changed of it; answers when all of them have. Where the
        time is up before, the command stands. MillraceError of FAILED_PRECONDITION says which worker could not, and
        why; what it served before it serves still."""
        request, deadline = (
            RepositoryModelLoadRequest(repository_name=repository, model_name=model),
            Deadline(timeout_s),
        )
        await self._calls.ask(
            lambda frontend: GRPCInferenceServiceStub(frontend.channel).RepositoryModelLoad(
                request, metadata=self._metadata, timeout=deadline.left_s
            ),
            retry_late=False,
        )

    async def unload_model(self, model: str, *, repository: str = "", timeout_s: float | None = None) -> None:
        """Has every worker unload a model, once the jobs that were accepted before are done; answers when all of them
        have. Where the time is up before, the command stands."""
        request = RepositoryModelUnloadRequest(repository_name=repository, model_name=model)
        deadline = Deadline(timeout_s)
        await self._calls.ask(
            lambda frontend: GRPCInferenceServiceStub(frontend.channel).RepositoryModelUnload(
                request, metadata=self._metadata, timeout=deadline.left_s
            ),
            retry_late=False,
        )

    def _watch(self, job_id: str, place: Place) -> AsyncGenerator[JobResult, None]:
        """A job's results from `place` on."""

        def begin(frontend: Frontend) -> "grpc.aio.UnaryStreamCall[WatchJobRequest, JobResult]":
            request = WatchJobRequest(job_id=job_id, after_offset=place.offset, after_history=place.history)
            return JobServiceStub(frontend.channel).WatchJob(request, metadata=self._metadata)

        return self._calls.follow(begin, place, waits=False)
