"""The border between the worker's shell and whatever runs a model.

An engine is found by name through the entry point group `millrace.engines`; the entry point is a callable that takes an
`EngineContext` and returns an `Engine`. The shell gives it durable streams, cancellation, leases and continuation; the
engine runs the model and does no I/O. Every method is called on one thread, the engine's own, never two at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from google.protobuf.message import Message

from millrace.errors import Code


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """What an engine is built from. `folder` holds model.yaml; `config` is its validated content, as plain data."""

    folder: Path
    config: dict[str, Any]
    device: str
    """"cpu" or "cuda"."""
    threads: int
    """Intra-operator threads; 0 lets the runtime choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One job for the engine."""

    job: str
    """Names the job in `abort` and in outputs."""
    request: bytes
    """The serialised task request (for generation a GenerateRequest), parsed by the frontend: ranges hold, seed set."""
    results: Sequence[bytes] = ()
    """The results already in the log, oldest first, as serialised task responses: go on after them."""
    epoch: int = 1
    """Which lease of the job this is, from 1. No model output may depend on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job ends without success. The message reaches the caller."""

    code: Code
    reason: str
    """UPPER_SNAKE."""
    message: str
    field: str = ""
    """The request's field that is to blame, by its path in the proto; only with INVALID_ARGUMENT."""


@dataclass(slots=True, kw_only=True)
class Output:
    """What one step adds to one job. The shell fills in job_id, offset, history and timing."""

    job: str
    result: Message | None = None
    """The task's response message; None where the job only ends."""
    last: bool = False
    """The job ends with this output: with success, unless `failure` says otherwise."""
    failure: Failure | None = None
    cost: float = 0.0
    """The job's total cost so far, in tokens (prompt plus completion) or rows; settles what the queue charged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the engine could add now."""

    jobs: int
    cost: float = field(default=float("inf"))
    """The largest cost of a single further job."""


class Engine(Protocol):
    """Runs one model. After construction it is warm: the first step costs what later ones do."""

    def add(self, work: Work) -> None:
        """Accepts a job, to be included from the next step on. A job it cannot run becomes an Output with a failure at
        the next step; the call itself raises nothing for a bad request."""

    def abort(self, job: str) -> None:
        """Forgets a job and frees what it held; unknown jobs are ignored. No output for it follows."""

    def step(self) -> Sequence[Output]:
        """Runs the model once over the jobs at hand and returns what it added, at most one output for each job.
        Returns at once, with what there is, when there is nothing to run. An exception poisons the process."""

    def capacity(self) -> Capacity:
        """Room for further jobs, those added but not yet stepped already counted."""
