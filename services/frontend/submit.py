"""The way in for SubmitJob: any task, with the job's options beside it."""

from millrace.errors import InvalidRequest, Violation
from millrace.v1.job_service_pb2 import SubmitJobRequest
from services.frontend.infer import check_submitted, make_infer
from services.frontend.parse import Asked, OtherTask, decode, make_options, raise_any, valid_generate
from services.frontend.rules import Bounds, Violations, check_generate, check_job


def parse_submit(raw: bytes, bounds: Bounds) -> Asked:
    """Raises InvalidRequest with the violations, and OtherTask for a kind that is not served."""
    request = decode(SubmitJobRequest, raw, max(bounds.max_request_bytes, bounds.max_tensor_bytes))
    kind = request.WhichOneof("task")
    if kind is None:
        raise InvalidRequest([Violation("task", "is required")])
    if kind not in ("generate", "infer"):
        raise OtherTask(f"{kind} is not served as a job", reason="TASK_UNIMPLEMENTED")
    raise_any(_check_task(request, kind, bounds), check_job(request.job, bounds, attachable=False))
    if kind == "infer":
        return make_infer(request.infer, request.infer.SerializeToString(), make_options(request.job, bounds))
    return valid_generate(request.generate, request.job, bounds)


def _check_task(request: SubmitJobRequest, kind: str, bounds: Bounds) -> Violations:
    most = bounds.max_tensor_bytes if kind == "infer" else bounds.max_request_bytes
    if getattr(request, kind).ByteSize() > most:
        yield Violation(kind, f"has {getattr(request, kind).ByteSize()} bytes, at most {most} are taken")
    if kind == "generate" and request.generate.HasField("job"):
        yield Violation("generate.job", "must be unset: the job's options stand beside the task")
    checked = check_submitted(request.infer) if kind == "infer" else check_generate(request.generate)
    for violation in checked:
        yield Violation(f"{kind}.{violation.field}", violation.description)
