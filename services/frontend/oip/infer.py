"""The way in for tensors: a ModelInferRequest, what its parameters say of the job, and the check against its model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from google.protobuf.duration_pb2 import Duration

from millrace.errors import Violation
from millrace.oip.inference_pb2 import InferParameter, ModelInferRequest
from millrace.queue import ModelEntry
from millrace.v1.job_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, PRIORITY_STANDARD, JobOptions
from services.frontend.oip.tensor_rules import check_tensors, rows
from services.frontend.parse import (
    Asked,
    OtherTask,
    ValidOptions,
    ValidRequest,
    decode,
    make_fingerprint,
    make_options,
    raise_any,
)
from services.frontend.rules import Bounds, Violations, check_job
from services.frontend.wire import varint

JOB_ID, RESUME_WINDOW, PRIORITY, TIMEOUT = "millrace_job_id", "millrace_resume_window_ms", "priority", "timeout"
AFTER_OFFSET, AFTER_HISTORY = "millrace_after_offset", "millrace_after_history"
OURS = (JOB_ID, RESUME_WINDOW, AFTER_OFFSET, AFTER_HISTORY, PRIORITY, TIMEOUT)
EMPTY_FINAL = "triton_enable_empty_final_response"
"""Whether a stream's end may be told by a response that holds nothing else. Single responses need none."""
HOW = (*OURS, EMPTY_FINAL)
"""Parameters that say how the job runs and is answered, not what it computes."""
ID_TAG = b"\x1a"
"""ModelInferResponse: id = 3 (length-delimited)."""
NO_FINGERPRINT = "0" * 32
WHOLE = re.compile("[0-9]{1,20}")
SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
PRIORITIES = {0: PRIORITY_STANDARD, 1: PRIORITY_INTERACTIVE, 2: PRIORITY_STANDARD}
"""Triton's numbers, 1 the highest and 0 the default; whatever is lower is a batch job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedInfer(Asked):
    """A ModelInferRequest whose parameters hold; its tensors are still to be checked."""

    message: ModelInferRequest
    payload: bytes

    def against(self, entry: ModelEntry) -> ValidRequest:
        """Raises InvalidRequest with the violations of the model's signature, and OtherTask."""
        if "infer" not in entry.tasks:
            raise OtherTask.of(entry, "infer")
        raise_any(check_tensors(self.message, entry))
        return ValidRequest(
            task="infer",
            model=self.model,
            model_version=self.model_version,
            fingerprint=self.fingerprint,
            payload=self.payload,
            cost=rows(self.message, entry),
            options=self.options,
        )


def parse_infer(raw: bytes, bounds: Bounds, *, attachable: bool = False) -> AskedInfer:
    """Raises InvalidRequest with the violations. The bytes go to the worker as they are. A request of a call that has
    more than one answer is `attachable` behind an offset."""
    request = decode_infer(raw, bounds)
    raise_any(_check_model(request))
    return make_infer(
        request, raw, _options(request, bounds, attachable) if request.parameters else _no_options(bounds)
    )


def decode_infer(raw: bytes, bounds: Bounds) -> ModelInferRequest:
    """Raises InvalidRequest."""
    return decode(ModelInferRequest, raw, bounds.max_tensor_bytes, "raw_input_contents")


def make_infer(request: ModelInferRequest, payload: bytes, options: ValidOptions) -> AskedInfer:
    """A job without a name can be asked for by nobody, and needs no fingerprint of what it is."""
    return AskedInfer(
        model=request.model_name,
        model_version=request.model_version,
        fingerprint=_fingerprint(request) if options.job_id else NO_FINGERPRINT,
        payload=payload,
        options=options,
        message=request,
    )


def _options(request: ModelInferRequest, bounds: Bounds, attachable: bool) -> ValidOptions:
    options = JobOptions()
    raise_any(_read_options(request.parameters, options))
    raise_any(check_job(options, bounds, attachable=attachable))
    return make_options(options, bounds)


@cache
def _no_options(bounds: Bounds) -> ValidOptions:
    return make_options(JobOptions(), bounds)


def wants_empty_final(request: ModelInferRequest) -> bool:
    return EMPTY_FINAL in request.parameters and request.parameters[EMPTY_FINAL].bool_param


def echo(request_id: str) -> bytes:
    """What follows a serialised response to give it this request's id: a job may have been started by a request with
    another. Of a field that is there twice the last one counts."""
    text = request_id.encode()
    return ID_TAG + varint(len(text)) + text


def check_submitted(request: ModelInferRequest) -> Violations:
    """What may not be in a request that is submitted as a job, whose options stand beside it."""
    yield from _check_model(request)
    for name in (*OURS, *SEQUENCES):
        if name in request.parameters:
            yield Violation(f"parameters[{name}]", "must be unset: the job's options stand beside the task")


def _check_model(request: ModelInferRequest) -> Violations:
    if not request.model_name:
        yield Violation("model_name", "is required")


def _read_options(parameters: Mapping[str, InferParameter], options: JobOptions) -> Violations:
    """Fills in what the parameters say; those that are not ours are the model's business, and ignored."""
    for name in parameters:
        field = f"parameters[{name}]"
        try:
            if name == JOB_ID:
                options.job_id = _text(parameters[name])
            elif name == RESUME_WINDOW:
                options.resume_window.CopyFrom(_microseconds(1000 * _whole(parameters[name])))
            elif name == TIMEOUT:
                options.timeout.CopyFrom(_microseconds(_whole(parameters[name])))
            elif name == PRIORITY:
                options.priority = PRIORITIES.get(_whole(parameters[name]), PRIORITY_BATCH)
            elif name == AFTER_OFFSET:
                options.after_offset = _whole(parameters[name])
            elif name == AFTER_HISTORY:
                options.after_history = _history(parameters[name])
            elif name in SEQUENCES and _is_set(parameters[name]):
                yield Violation(field, "is not supported: models keep no state between requests")
            elif name.startswith("millrace_"):
                yield Violation(field, "is not known")
        except ValueError as error:
            yield Violation(field, str(error))


def _text(parameter: InferParameter) -> str:
    if parameter.WhichOneof("parameter_choice") != "string_param" or not parameter.string_param:
        raise ValueError("must be a string, and not empty")
    return parameter.string_param


def _whole(parameter: InferParameter) -> int:
    kind = parameter.WhichOneof("parameter_choice")
    value = parameter.int64_param if kind == "int64_param" else parameter.uint64_param
    if kind not in ("int64_param", "uint64_param") or not 0 <= value < 2**53:
        raise ValueError("must be a whole number, 0 or more")
    return value


def _history(parameter: InferParameter) -> int:
    """64 bits; as text too, since what some clients call an integer ends at 2^63."""
    kind = parameter.WhichOneof("parameter_choice")
    text = str(getattr(parameter, kind)) if kind in ("string_param", "uint64_param", "int64_param") else ""
    if not WHOLE.fullmatch(text) or (value := int(text)) >= 2**64:
        raise ValueError("must be a whole number of 64 bits, or its decimal digits")
    return value


def _is_set(parameter: InferParameter) -> bool:
    kind = parameter.WhichOneof("parameter_choice")
    return kind is not None and bool(getattr(parameter, kind))


def _microseconds(value: int) -> Duration:
    return Duration(seconds=value // 1_000_000, nanos=value % 1_000_000 * 1000)


def _fingerprint(request: ModelInferRequest) -> str:
    """Of what is computed: neither the request's id nor how its job runs."""
    bare = ModelInferRequest()
    bare.CopyFrom(request)
    bare.ClearField("id")
    for name in HOW:
        bare.parameters.pop(name, None)
    return make_fingerprint(bare)
