"""The way in for SubmitJob: any task, with the job's options beside it."""

from millrace.errors import InvalidRequest, Violation
from millrace.v1.job_service_pb2 import SubmitJobRequest
from services.frontend.oip.infer import check_submitted, make_infer
from services.frontend.parse import Asked, decode, make_options, raise_any, valid_generate
from services.frontend.rules import Bounds, Violations, check_generate, check_job
from services.frontend.typed import TYPED, valid_typed


def parse_submit(raw: bytes, bounds: Bounds) -> Asked:
    """Raises InvalidRequest with the violations."""
    request = decode(SubmitJobRequest, raw, max(bounds.max_request_bytes, bounds.max_tensor_bytes))
    task = request.WhichOneof("task")
    if task is None:
        raise InvalidRequest([Violation("task", "is required")])
    raise_any(_check_task(request, task, bounds), check_job(request.job, bounds, attachable=False))
    if task == "infer":
        return make_infer(request.infer, request.infer.SerializeToString(), make_options(request.job, bounds))
    if task == "generate":
        return valid_generate(request.generate, request.job, bounds)
    return valid_typed(task, getattr(request, task), request.job, bounds)


def _check_task(request: SubmitJobRequest, task: str, bounds: Bounds) -> Violations:
    asked = getattr(request, task)
    if asked.ByteSize() > (most := _most_bytes(task, bounds)):
        yield Violation(task, f"has {asked.ByteSize()} bytes, at most {most} are taken")
    if task != "infer" and asked.HasField("job"):
        yield Violation(f"{task}.job", "must be unset: the job's options stand beside the task")
    for violation in _check(task, request):
        yield Violation(f"{task}.{violation.field}", violation.description)


def _check(task: str, request: SubmitJobRequest) -> Violations:
    if task == "infer":
        return check_submitted(request.infer)
    if task == "generate":
        return check_generate(request.generate)
    return TYPED[task].check(getattr(request, task))


def _most_bytes(task: str, bounds: Bounds) -> int:
    if task == "infer":
        return bounds.max_tensor_bytes
    return TYPED[task].most_bytes(bounds) if task in TYPED else bounds.max_request_bytes
