"""The stub model: it sleeps instead of computing, and its tokens prove what was run, when, and after what.

A token is a hash of the job, its position, the token before it and the lease's epoch. From a job's log alone a checker
can derive which tokens it must hold: a repeated, lost or swapped token shows, and so does one that another lease wrote.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from millrace.engine import Capacity, EngineContext, Failure, Output, Signature, Work
from millrace.errors import Code
from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    CompletionDelta,
    GenerateRequest,
    GenerateResponse,
    Usage,
)
from services.worker.arrivals import Arrivals

VOCABULARY = 50_000
FIRST = 0
"""What stands before the first token."""
DEFAULT_MAX_TOKENS = 100
UNREADABLE = Failure(
    code=Code.INVALID_ARGUMENT, reason="INVALID_REQUEST", message="the request is not a GenerateRequest"
)
TORN = Failure(code=Code.DATA_LOSS, reason="LOG_MISMATCH", message="the log holds what is no GenerateResponse")
TOO_MUCH = Failure(code=Code.DATA_LOSS, reason="LOG_MISMATCH", message="the log holds too many tokens")
POISON_PROMPT, POISON_EXIT = "poison", 66


def stub_token(job: str, position: int, previous: int, epoch: int, vocabulary: int = VOCABULARY) -> int:
    """The token at a position (from 0) of a job, after `previous` (`FIRST` at position 0), under a lease's epoch."""
    text = f"{job}\0{position}\0{previous}\0{epoch}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") % vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class StubOptions:
    """`engine_options` of model.yaml."""

    step_ms: float = 10.0
    """How long a step takes, whatever the number of jobs."""
    vocabulary: int = VOCABULARY
    slots: int | None = None
    """None: the model's `slots`."""
    text_bytes: int = 0
    """A token's text is padded to so many."""
    poison: bool = False
    """The prompt "poison" ends the process at the job's first step."""


@dataclass(slots=True)
class _Job:
    lease: str
    job: str
    epoch: int
    seed: int
    max_tokens: int
    prompt_tokens: int
    is_poison: bool
    token_ids: list[int] = field(default_factory=list)


class StubEngine:
    """Implements `millrace.engine.Engine`. One token a step for each job; max_tokens ends a completion."""

    lanes = 1
    signature = Signature()

    def __init__(self, context: EngineContext) -> None:
        self._options = StubOptions(**context.config.get("engine_options", {}))
        self._slots = self._options.slots or context.config.get("slots", 32)
        self._jobs: dict[str, _Job] = {}
        self._arrivals = Arrivals[_Job]()
        self._slept_s = 0.0
        self._completion_tokens = 0
        self.steps = 0
        """How many steps have run a job."""

    def capacity(self) -> Capacity:
        return Capacity(jobs=max(self._slots - len(self._arrivals), 0))

    def counters(self) -> dict[str, float]:
        """steps that have run a job; completion_tokens that they gave."""
        return {"steps": self.steps, "completion_tokens": self._completion_tokens}

    def add(self, work: Work) -> None:
        try:
            job = self._accept(work)
        except DecodeError:
            self._arrivals.end(Output(lease=work.lease, last=True, failure=UNREADABLE))
            return
        try:
            logged = [delta for body in work.results for delta in GenerateResponse.FromString(body).deltas]
        except DecodeError:
            self._arrivals.end(Output(lease=work.lease, last=True, failure=TORN))
            return
        self._resume(job, logged)

    def _resume(self, job: _Job, logged: Sequence[CompletionDelta]) -> None:
        job.token_ids = [token_id for delta in logged for token_id in delta.token_ids]
        if any(delta.finish_reason for delta in logged):
            self._arrivals.end(Output(lease=job.lease, last=True, cost=self._cost(job)))
        elif len(job.token_ids) > job.max_tokens:
            self._arrivals.end(Output(lease=job.lease, last=True, failure=TOO_MUCH))
        elif len(job.token_ids) == job.max_tokens:
            self._arrivals.end(self._output(job, []))
        else:
            self._arrivals.join(job.lease, job)

    def abort(self, lease: str) -> None:
        self._arrivals.leave(lease)

    def step(self) -> list[Output] | None:
        ended = self._arrivals.take(self._join, self._forget)
        if not self._jobs:
            return ended or None
        self._run()
        outputs = [self._advance(job) for job in self._jobs.values()]
        for output in outputs:
            if output.last:
                del self._jobs[output.lease]
                self._arrivals.freed(output.lease)
        return ended + outputs

    def _join(self, job: _Job) -> None:
        self._jobs[job.lease] = job

    def _forget(self, lease: str) -> None:
        self._jobs.pop(lease, None)

    def _run(self) -> None:
        """Sleeps for one step, and makes sure of it."""
        if any(job.is_poison for job in self._jobs.values()):
            os._exit(POISON_EXIT)
        began = time.monotonic()
        time.sleep(self._options.step_ms / 1000)
        self._slept_s += time.monotonic() - began
        self.steps += 1
        if self._slept_s < self.steps * self._options.step_ms / 1000 * 0.99:
            raise AssertionError(f"{self.steps} steps took {self._slept_s} s: they did not really run")

    def _advance(self, job: _Job) -> Output:
        previous = job.token_ids[-1] if job.token_ids else FIRST
        token_id = stub_token(job.job, len(job.token_ids), previous, job.epoch, self._options.vocabulary)
        job.token_ids.append(token_id)
        self._completion_tokens += 1
        return self._output(job, [token_id])

    def _accept(self, work: Work) -> _Job:
        request = GenerateRequest.FromString(work.request)
        prompt_tokens = len(request.tokens.ids) if request.HasField("tokens") else len(request.text.split())
        return _Job(
            lease=work.lease,
            job=work.job,
            epoch=work.epoch,
            seed=request.sampling.seed,
            max_tokens=request.stopping.max_tokens or DEFAULT_MAX_TOKENS,
            prompt_tokens=prompt_tokens,
            is_poison=self._options.poison and request.text == POISON_PROMPT,
        )

    def _output(self, job: _Job, token_ids: list[int]) -> Output:
        text = "".join(f"{token_id} ".ljust(self._options.text_bytes) for token_id in token_ids)
        delta = CompletionDelta(text=text, token_ids=token_ids)
        response = GenerateResponse(deltas=[delta])
        last = len(job.token_ids) >= job.max_tokens
        if last:
            response.deltas[0].finish_reason = FINISH_REASON_LENGTH
            completion = len(job.token_ids)
            usage = Usage(prompt_tokens=job.prompt_tokens, completion_tokens=completion, seed=job.seed)
            response.usage.CopyFrom(usage)
        return Output(lease=job.lease, result=response, last=last, cost=self._cost(job))

    def _cost(self, job: _Job) -> float:
        return job.prompt_tokens + len(job.token_ids)
