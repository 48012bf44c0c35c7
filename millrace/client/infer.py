"""From keyword arguments to what a ModelInferRequest says of its job, without numpy."""

import time
from typing import TYPE_CHECKING, TypeAlias

from millrace.client.request import PriorityName
from millrace.errors import InvalidRequest, Violation
from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.v1.job_service_pb2 import JobResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy.typing as npt

Inputs: TypeAlias = "Mapping[str, npt.ArrayLike]"
"""By the model's names: arrays, or whatever numpy makes an array of. Their dtypes are sent as they are."""
Arrays: TypeAlias = "dict[str, npt.NDArray[Any]]"
"""By the model's names."""
PRIORITIES: dict[PriorityName, int] = {"interactive": 1, "standard": 0, "batch": 3}
"""As Triton counts them."""
READERS = {"generated": "watch", "inferred": "infer_result"}
"""The client's methods by the kind of the results that they read."""
DEADLINE_SLACK_S = 2.0
"""What a job's own ending gets to arrive in."""


class Deadline:
    """When a call with a timeout is given up, over all its attempts."""

    def __init__(self, timeout_s: float | None) -> None:
        self._at = None if timeout_s is None else time.monotonic() + timeout_s + DEADLINE_SLACK_S

    @property
    def left_s(self) -> float | None:
        return None if self._at is None else max(self._at - time.monotonic(), 0.0)


def set_job(
    request: ModelInferRequest,
    *,
    job_id: str | None,
    resume_window_s: float,
    timeout_s: float | None,
    priority: PriorityName | None,
) -> None:
    """Fills in the parameters that say how the job runs; what is not given stays out. Nobody can come back for a job
    without a name."""
    parameters = request.parameters
    if job_id is not None:
        parameters["millrace_job_id"].string_param = job_id
    if job_id is not None and resume_window_s:
        parameters["millrace_resume_window_ms"].int64_param = round(resume_window_s * 1000)
    if timeout_s is not None:
        parameters["timeout"].int64_param = round(timeout_s * 1_000_000)
    if priority is not None:
        parameters["priority"].int64_param = PRIORITIES[priority]


def check_kind(result: JobResult, kind: str) -> None:
    """Raises InvalidRequest where a job's results are of another kind than this one."""
    found = result.WhichOneof("result")
    if found != kind:
        reader = READERS.get(found or "", "a newer client")
        raise InvalidRequest([Violation("job_id", f"this job's results are read with {reader}")])
