"""The client for programs without an event loop: `AsyncClient`, method for method."""

import weakref
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Self, Unpack

from millrace.client.client import AsyncClient
from millrace.client.infer import Arrays, Inputs
from millrace.client.loop import LoopThread
from millrace.client.metadata import ApiKey
from millrace.client.request import GenerateOptions, PriorityName, Prompt
from millrace.client.results import Completion, Delta
from millrace.client.sync_typed import SyncTypedTasks
from millrace.client.tls import Tls
from millrace.oip.inference_pb2 import ModelConfigResponse, ModelMetadataResponse, RepositoryIndexResponse
from millrace.v1.fleet_pb2 import Model, Worker
from millrace.v1.job_service_pb2 import Job


class Client(SyncTypedTasks):
    """Speaks to one or more frontends of one service.

        with millrace.Client("127.0.0.1:8001", "127.0.0.1:8011") as client:
            for delta in client.generate("pycode", "def fib(n):", max_tokens=64):
                print(delta.text, end="")

    Several threads may use it at once. Ctrl-C in a call that waits cancels it. `close`, which `with` does at its end,
    cancels what still runs; a call after it raises RuntimeError. All else is as with `AsyncClient`.
    """

    _client: AsyncClient

    def __init__(
        self,
        *addresses: str,
        tenant: str | None = None,
        api_key: ApiKey | None = None,
        tls: Tls | bool = False,
        retry_s: float = 30.0,
        retry_exhausted: bool = False,
    ) -> None:
        self._client = AsyncClient(
            *addresses,
            tenant=tenant,
            api_key=api_key,
            tls=tls,
            retry_s=retry_s,
            retry_exhausted=retry_exhausted,
        )
        self._loop = LoopThread(self._client)
        self._end = weakref.finalize(self, self._loop.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancels what still runs, the jobs of open streams included, and ends the client's thread."""
        self._end()

    def generate(
        self,
        model: str,
        prompt: Prompt,
        *,
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generator[Delta, None, None]:
        """Streams a completion as `Delta`s: `.text`, `.token_ids`, `.finish_reason`, `.offset`; `.usage` in the last.

        `job_id` names the job: the same request under the same name attaches to it. `resume_window_s` is how long the
        job is kept for this client while the connection is lost. A stream that is left before its end cancels the job.
        """
        stream = self._client.generate(
            model,
            prompt,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
            **options,
        )
        yield from self._loop.iterate(stream)

    def generate_text(
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
        return self._loop.call(
            self._client.generate_text,
            model,
            prompt,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
            **options,
        )

    def submit(
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
        return self._loop.call(
            self._client.submit,
            model,
            prompt,
            job_id=job_id,
            timeout_s=timeout_s,
            priority=priority,
            **options,
        )

    def watch(self, job_id: str, *, after_offset: int = 0, after_history: int = 0) -> Generator[Delta, None, None]:
        """Streams a generation's results from after_offset on. Leaving it does not cancel the job."""
        stream = self._client.watch(job_id, after_offset=after_offset, after_history=after_history)
        yield from self._loop.iterate(stream)

    def infer(
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
        return self._loop.call(
            self._client.infer,
            model,
            inputs,
            outputs=outputs,
            model_version=model_version,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
        )

    def submit_infer(
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
        return self._loop.call(
            self._client.submit_infer,
            model,
            inputs,
            outputs=outputs,
            model_version=model_version,
            job_id=job_id,
            timeout_s=timeout_s,
            priority=priority,
        )

    def infer_result(self, job_id: str) -> Arrays:
        """Waits for the outputs of a run that was submitted. Leaving it does not cancel the job."""
        return self._loop.call(self._client.infer_result, job_id)

    def get(self, job_id: str) -> Job:
        """How a job stands."""
        return self._loop.call(self._client.get, job_id)

    def cancel(self, job_id: str) -> Job:
        """Stops a job; one that has ended is left as it is."""
        return self._loop.call(self._client.cancel, job_id)

    def models(self) -> list[Model]:
        """What is served, by how many workers, and how long a new job would wait."""
        return self._loop.call(self._client.models)

    def model_metadata(self, model: str, model_version: str = "") -> ModelMetadataResponse:
        """What a model takes and gives: names, datatypes and shapes, in which -1 is any size."""
        return self._loop.call(self._client.model_metadata, model, model_version)

    def model_config(self, model: str, model_version: str = "") -> ModelConfigResponse:
        """How a model is served: its files' digest among the parameters, its versions, batching and instances."""
        return self._loop.call(self._client.model_config, model, model_version)

    def workers(self) -> list[Worker]:
        """The workers that are alive, and what they are busy with."""
        return self._loop.call(self._client.workers)

    def repository_index(
        self, *, repository: str = "", ready: bool = False
    ) -> list[RepositoryIndexResponse.ModelIndex]:
        """Every version in the repository of the workers, or in the one named: its state, and why it is in it. `ready`:
        only what is served."""
        return self._loop.call(self._client.repository_index, repository=repository, ready=ready)

    def load_model(self, model: str, *, repository: str = "", timeout_s: float | None = None) -> None:
        """Has every worker load a model, or load anew what has changed of it; answers when all of them have. Where the
        time is up before, the command stands. MillraceError of FAILED_PRECONDITION says which worker could not, and
        why; what it served before it serves still."""
        self._loop.call(self._client.load_model, model, repository=repository, timeout_s=timeout_s)

    def unload_model(self, model: str, *, repository: str = "", timeout_s: float | None = None) -> None:
        """Has every worker unload a model, once the jobs that were accepted before are done; answers when all of them
        have. Where the time is up before, the command stands."""
        self._loop.call(self._client.unload_model, model, repository=repository, timeout_s=timeout_s)
