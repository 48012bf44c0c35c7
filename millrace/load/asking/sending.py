"""What a task sends, and what its messages count: the part of a call that differs from task to task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc.aio

from millrace.client.request import make_job_options
from millrace.load.asking.verify import Stream
from millrace.load.scenario import Scenario
from millrace.v1.job_pb2 import JobOptions

RESUME_WINDOW_S = 15.0


@dataclass(frozen=True, slots=True)
class Received:
    """A message. `tokens`: new in it; rows of tensors and embeddings; 1 for a segment of a transcript. `prompt_tokens`:
    in the last one, 0 before."""

    tokens: int
    prompt_tokens: int = 0


class Prepare(Protocol):
    """The request of that number, which may be another's as well. The lengths are those of a trace."""

    def __call__(self, index: int, prompt_tokens: int | None, output_tokens: int | None) -> Any: ...


Method: TypeAlias = Callable[[grpc.aio.Channel], Callable[..., Any]]
"""The service's method on a channel."""
Same: TypeAlias = Callable[[Any, Any], bool]
"""Whether two answers to the same request are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    prepare: Prepare
    name: Callable[[Any, str], Any]
    """The request with its job's name."""
    method: Method
    count: Callable[[Any], Received]


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming(Sending):
    """Results one after the other."""

    stream: type[Stream]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering(Sending):
    """One answer. Requests whose numbers differ by a multiple of `variants` are equal."""

    variants: int
    same: Same


class Turns:
    """Requests that are prepared once and sent in turn."""

    def __init__(self, requests: Sequence[Any]) -> None:
        self._requests = requests

    def __len__(self) -> int:
        return len(self._requests)

    def prepare(self, index: int, prompt_tokens: int | None, output_tokens: int | None) -> Any:
        return self._requests[index % len(self._requests)]


def job_options(scenario: Scenario) -> JobOptions:
    """Of every request, all but the name. Only a job that has a name can be come back for."""
    requests = scenario.requests
    return make_job_options(
        "",
        resume_window_s=RESUME_WINDOW_S if scenario.resume else 0,
        timeout_s=requests.timeout_s,
        priority=requests.priority,
    )


def name_copy(request: Any, job_id: str) -> Any:
    """A copy of a request that has JobOptions, with the name."""
    named = type(request)()
    named.CopyFrom(request)
    named.job.job_id = job_id
    return named
