"""The calls of a load test: from a request's number to the messages of its answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

import grpc.aio

from millrace.client.calls import Calls
from millrace.client.follow import Place
from millrace.client.frontends import Frontend
from millrace.load.asking.generating import generating
from millrace.load.asking.models import find_model, find_tensors
from millrace.load.asking.sending import Answering, Received, Streaming
from millrace.load.asking.typed import classifying, embedding, transcribing
from millrace.load.asking.verify import Answers, Verifier, Watched
from millrace.load.result import Verification
from millrace.load.scenario import Requests, Scenario, Task

RETRY_S = 30.0
"""For how long a stream that has lost its frontend looks for another."""
OF_ALL = frozenset({"priority", "timeout_s"})
FIELDS: dict[Task, frozenset[str]] = {
    "generate": frozenset({"prompt", "prompts", "prompt_tokens", "token_ids", "max_tokens", "options"}),
    "infer": frozenset({"inputs", "rows"}),
    "embed": frozenset({"prompt", "prompts", "texts"}),
    "classify": frozenset({"prompt", "prompts", "files"}),
    "transcribe": frozenset({"files"}),
}
"""What the requests of a task are made of, beside `OF_ALL`."""


class Asker:
    """Asks for what the scenario says. `salt` names the run: no two may have the same.

    Entering it reads the scenario's files and asks the service about the model where it has to. That raises ValueError
    with a sentence where the scenario does not fit the task, MillraceError where the service does not answer.
    """

    def __init__(self, scenario: Scenario, task: Task, salt: str) -> None:
        self._scenario, self._task, self._salt = scenario, task, salt
        self._is_named = False
        retry_s = RETRY_S if scenario.resume else 0.0
        addresses = tuple(scenario.addresses)
        self._calls = Calls(
            addresses,
            tenant=scenario.tenant,
            api_key=scenario.api_key,
            retry_s=retry_s,
            retry_exhausted=False,
            tls=scenario.client_tls(),
        )
        self._methods: dict[Frontend, Any] = {}
        self._verifier = Verifier() if scenario.verify else None
        self._answers: Answers | None = None

    async def __aenter__(self) -> Self:
        check_fields(self._scenario.requests, self._task)
        self._calls.open()
        try:
            self._sending = await self._make()
            if self._verifier is not None and isinstance(self._sending, Answering):
                self._answers = Answers(self._verifier, self._sending.same)
            streams = isinstance(self._sending, Streaming)
            self._is_named = self._scenario.resume or (self._scenario.verify and streams)
        except BaseException:
            await self._calls.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()

    def ask(
        self, index: int, prompt_tokens: int | None = None, output_tokens: int | None = None
    ) -> AsyncGenerator[Received, None]:
        """The messages of the answer as they arrive. The lengths are those of a trace, which a generation keeps exactly
        and other tasks leave aside. Raises MillraceError where it is refused or fails; a call that is left is stopped.
        """
        sending, job_id = self._sending, f"{self._salt}-{index}"
        request = sending.prepare(index, prompt_tokens, output_tokens)
        if self._is_named:
            request = sending.name(request, job_id)
        if isinstance(sending, Streaming):
            return self._stream(sending, request, job_id)
        return self._answer(sending, request, job_id, index % sending.variants)

    def verification(self) -> Verification | None:
        """What was found so far; None where the scenario does not ask for it."""
        return None if self._verifier is None else self._verifier.verification()

    async def _make(self) -> Streaming | Answering:
        scenario, model, version = self._scenario, self._scenario.model, self._scenario.model_version
        if self._task == "generate":
            return generating(scenario)
        if self._task == "transcribe":
            return transcribing(scenario)
        if self._task == "embed":
            return embedding(scenario)
        if self._task == "classify":
            return classifying(scenario, (await find_model(self._calls, model)).task)
        from millrace.load.asking.tensors import inferring

        return inferring(scenario, await find_tensors(self._calls, model, version))

    async def _stream(self, sending: Streaming, request: Any, job_id: str) -> AsyncGenerator[Received, None]:
        place, count = Place(), sending.count
        stream = sending.stream(self._verifier, job_id) if self._verifier else None

        def begin(frontend: Frontend) -> "grpc.aio.UnaryStreamCall[Any, Any]":
            if place.offset:
                request.job.after_offset, request.job.after_history = place.offset, place.history
            call = self._call(frontend, request)
            return call if stream is None else cast("grpc.aio.UnaryStreamCall[Any, Any]", Watched(call, stream))

        messages = self._calls.follow(begin, place, waits=False)
        try:
            async with aclosing(messages):
                async for message in messages:
                    yield count(message)
        finally:
            if self._scenario.resume and not (place.ended or place.refused):
                await self._calls.abandon(job_id)

    async def _answer(
        self, sending: Answering, request: Any, job_id: str, variant: int
    ) -> AsyncGenerator[Received, None]:
        try:
            message: Any = await self._calls.ask(lambda frontend: self._call(frontend, request), retry_late=False)
        except asyncio.CancelledError:
            if self._scenario.resume:
                await self._calls.abandon(job_id)
            raise
        if self._answers is not None:
            self._answers.see(variant, job_id, message)
        yield sending.count(message)

    def _call(self, frontend: Frontend, request: Any) -> Any:
        if frontend not in self._methods:
            self._methods[frontend] = self._sending.method(frontend.channel)
        return self._methods[frontend](request, metadata=self._calls.metadata)


def check_fields(requests: Requests, task: Task) -> None:
    """Raises ValueError for a field that another task's requests are made of."""
    unset = Requests()
    for name in Requests.model_fields:
        if name not in FIELDS[task] | OF_ALL and getattr(requests, name) != getattr(unset, name):
            owners = " and ".join(other for other, fields in FIELDS.items() if name in fields)
            raise ValueError(f"requests.{name} means nothing to {task}: it is for {owners}")
