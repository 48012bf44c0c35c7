"""The border between the worker's shell and whatever runs a model.

An engine is found by name through the entry point group `millrace.engines`; the entry point is a callable that takes an
`EngineContext` and returns an `Engine`. The shell gives it durable streams, cancellation, leases and continuation; the
engine runs the model and does no I/O.

Steps run on device threads, at most `lanes` of one engine at once. Everything else may be called on any thread while
steps run, and does not wait for them: so the next jobs are decoded while the device is busy with others.

docs/engines.md tells how to write an engine; tests/worker/conformance holds any engine to each sentence below.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from google.protobuf.message import Message

from millrace.errors import Code
from millrace.tensors import TensorSpec

CONTRACT = 2
"""The version of this contract. An engine may state the one that it was written for, as `contract`; a worker refuses to
load one that was written for a later version than its own."""


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
    """One job for the engine, under one lease."""

    lease: str
    """Names the work in `abort` and in outputs; the same job taken again comes under another name."""
    job: str
    """Which job it is, whoever holds it."""
    request: bytes
    """The serialised task request (a GenerateRequest, a ModelInferRequest, …), parsed by the frontend: ranges hold,
    seed set."""
    task: str = ""
    """Which kind of request it is, by its field in SubmitJobRequest: "generate", "embed", "classify", "transcribe" or
    "infer". Empty: the only one, or the most plain one, that the engine knows."""
    results: Sequence[bytes] = ()
    """The results already in the log, oldest first, as serialised task responses: go on after them. Where the last of
    them was the job's last, only the end is missing. Results that cannot be gone on after are a failure."""
    submitted_at: float = 0.0
    """When the job was submitted, in seconds since 1970: the present, for whatever its output may depend on."""
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

    lease: str
    result: Message | Callable[[], Message] | None = None
    """The task's response message, or what makes it, called once, perhaps while the engine steps on; None where the job
    only ends."""
    last: bool = False
    """The job ends with this output: with success, unless `failure` says otherwise."""
    failure: Failure | None = None
    cost: float = 0.0
    """The job's total cost so far, in tokens (prompt plus completion) or rows; never less than before. Settles what the
    queue charged."""
    began: float = 0.0
    """When the model began to run for it, in seconds of time.monotonic(); 0: with the step. For engines whose steps may
    wait before they run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the engine could add now."""

    jobs: int
    cost: float = field(default=float("inf"))
    """The largest cost of a single further job."""
    payload_bytes: float = field(default=float("inf"))
    """What the requests of further jobs may have together; one job may be larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a model's requests are: the tensors that it takes and gives, if any, and the kinds of requests. Shapes hold
    -1 where any size goes."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    max_batch_size: int = 0
    """Rows that one request may have; 0: the first dimension is not a batch."""
    tasks: tuple[str, ...] = ()
    """As `Work.task` has them. Empty: "infer" where there are tensors, else "generate"."""


class Engine(Protocol):
    """Runs one model. After construction it is warm: the first step costs what later ones do.

    Every job that was added, and not aborted, ends with exactly one output that is its `last`, however many others come
    after it; nothing follows that. One that goes on behind results gives what is missing of an undisturbed run. A job
    may come twice at a time, under two leases: each runs for itself.
    """

    @property
    def lanes(self) -> int:
        """How many steps may run at once."""

    @property
    def signature(self) -> Signature:
        """Empty for engines whose requests are not tensors."""

    def add(self, work: Work) -> None:
        """Accepts a job, to be included from the next step on, or as soon as what it needs is prepared. A job it cannot
        run becomes an Output with a failure at that step; the call itself raises nothing for a bad request or bad
        results."""

    def abort(self, lease: str) -> None:
        """Forgets a job and frees what it held, at the next step at the latest; unknown ones are ignored. A job that is
        added behind the call may have its place. An output for it may follow from a step that runs, and is of no use to
        anybody."""

    def step(self) -> Sequence[Output] | None:
        """Runs the model once over the jobs at hand and returns what it added, at most one output for each job; None,
        at once, where there is nothing to run and nothing being prepared: it is called again after the next `add` or
        `abort`. An exception poisons the process."""

    def capacity(self) -> Capacity:
        """Room for further jobs, those added but not yet stepped already counted. No more jobs are added than it says;
        one that needs more than one place may be added all the same, and waits for what it lacks."""

    def counters(self) -> Mapping[str, float]:
        """Totals since the start, by a name in snake_case that says what is counted; none ever falls. The shell
        publishes each at /metrics, as millrace_engine_NAME_total. An engine may have `gauges` of the same form beside
        them: values of the moment, published as millrace_engine_NAME."""
