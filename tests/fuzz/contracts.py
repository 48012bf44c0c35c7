"""What must hold of an accepted request, said once more and without the code that accepts it."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import Message

from millrace.errors import Code, MillraceError
from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.queue import ModelEntry, Priority
from millrace.v1.generation_pb2 import GenerateRequest
from services.frontend.parse import ValidOptions, ValidRequest
from services.frontend.status import to_status
from tests.fuzz.samples import BOUNDS, DTYPES
from tests.fuzz.target import must

ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
MOST_COMPLETIONS = 16
MOST_COST = 1 << 26
"""No job is so large that it alone fills a queue."""
MOST_ELEMENTS = BOUNDS.max_tensor_bytes
MOST_TRAILER_BYTES = 8_192
"""gRPC drops a call's trailers, and the status with them, where they are larger than its default allows."""
REALS: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 3.5e38),
    "top_p": (1e-46, 1),
    "min_p": (0, 1 - 1e-8),
    "repetition_penalty": (1e-46, 3.5e38),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "num_completions": (1, 16),
}
"""The ranges of protos/millrace/v1/generation.proto."""


def check_refusal(error: MillraceError, *codes: Code) -> None:
    """It has one of the codes, and can be told to the caller."""
    must(error.code in codes, f"{error.code.name} is none of {', '.join(code.name for code in codes)}: {error}")
    must(error.message and error.reason, "a refusal without a reason")
    status = to_status(error)
    trailer = len(status.SerializeToString()) * 4 / 3 + 3 * len(status.message.encode())
    must(trailer < MOST_TRAILER_BYTES, f"the status of a refusal takes {trailer:.0f} bytes")


def check_options(options: ValidOptions) -> None:
    must(not options.job_id or ID.match(options.job_id), f"job_id {options.job_id!r}")
    must(options.priority in (Priority.BATCH, Priority.STANDARD, Priority.INTERACTIVE), "priority")
    must(0 < options.timeout_ms <= BOUNDS.max_timeout_s * 1000, f"a timeout of {options.timeout_ms} ms")
    must(0 <= options.resume_window_ms <= BOUNDS.max_resume_window_s * 1000, f"window {options.resume_window_ms} ms")
    must(0 <= options.position.offset < 2**64, "offset")
    must(not options.position.offset or options.job_id, "an offset of a job without a name")
    must(len(options.position.history) in ((0, 8) if options.position.offset else (0,)), "history")


def check_durations(asked: Any, options: ValidOptions) -> None:
    """`asked`: JobOptions. What is asked for is given, to the millisecond, and never rounded to what means something
    else."""
    for field, given_ms in (("timeout", options.timeout_ms), ("resume_window", options.resume_window_ms)):
        duration = getattr(asked, field)
        if (nanoseconds := duration.seconds * 10**9 + duration.nanos) > 0:
            must(0 <= given_ms - nanoseconds / 10**6 < 1, f"{field} of {nanoseconds} ns became {given_ms} ms")


def check_request(valid: ValidRequest, entry: ModelEntry) -> None:
    """What holds of every task."""
    check_options(valid.options)
    must(valid.model, "no model")
    must(re.fullmatch("[0-9a-f]{32}", valid.fingerprint), f"fingerprint {valid.fingerprint!r}")
    must(1 <= valid.completions <= MOST_COMPLETIONS, f"{valid.completions} completions")
    most = valid.completions * (entry.context_length or entry.max_batch_size or MOST_COST)
    must(1 <= valid.cost <= most, f"a cost of {valid.cost}, which is not from 1 to {most}")
    must(len(valid.payload) <= BOUNDS.max_tensor_bytes * 2, "the payload is larger than any request")


def check_generation(valid: ValidRequest, asked: GenerateRequest) -> None:
    """The payload is what was asked, with a seed and without the job's options."""
    must(valid.task == "generate", valid.task)
    ran = GenerateRequest.FromString(valid.payload)
    must(not ran.HasField("job") and ran.sampling.HasField("seed"), "job or seed")
    _check_ranges(ran)
    if not asked.sampling.HasField("seed"):
        asked.sampling.seed = ran.sampling.seed
    asked.ClearField("job")
    must(asked.SerializeToString(deterministic=True) == ran.SerializeToString(deterministic=True), "another request")


def _check_ranges(ran: GenerateRequest) -> None:
    must(ran.model and ran.WhichOneof("prompt"), "neither model nor prompt")
    must(ran.text or ran.tokens.ids or ran.conversation.messages, "an empty prompt")
    for field, (least, most) in REALS.items():
        if ran.sampling.HasField(field):  # type: ignore[arg-type]
            value = getattr(ran.sampling, field)
            must(least <= value <= most, f"sampling.{field} is {value}")
    must(all(map(math.isfinite, ran.sampling.logit_bias.values())), "logit_bias")
    stopping, reporting = ran.stopping, ran.reporting
    if stopping.HasField("max_tokens"):
        must(1 <= stopping.max_tokens >= stopping.min_tokens, "stopping.max_tokens")
    must(len(stopping.stop_strings) <= 16, "stop_strings")
    must(all(1 <= len(text.encode()) <= 256 for text in stopping.stop_strings), "a stop string's length")
    must(reporting.logprobs <= 20 and reporting.prompt_logprobs <= 20, "reporting")


def check_typed(valid: ValidRequest, asked: Message) -> None:
    """The payload is what was asked, without the job's options."""
    check_options(valid.options)
    must(1 <= valid.cost <= MOST_COST, f"a cost of {valid.cost}")
    sent = type(asked).FromString(valid.payload)
    asked.ClearField("job")
    must(asked.SerializeToString(deterministic=True) == sent.SerializeToString(deterministic=True), "another request")


def check_infer(valid: ValidRequest, asked: ModelInferRequest, entry: ModelEntry) -> None:
    """The payload's tensors are those that the model takes."""
    must(valid.task == "infer", valid.task)
    sent = ModelInferRequest.FromString(valid.payload)
    must(sent.SerializeToString(deterministic=True) == asked.SerializeToString(deterministic=True), "another request")
    must(sorted(tensor.name for tensor in sent.inputs) == sorted(spec.name for spec in entry.inputs), "inputs")
    must({output.name for output in sent.outputs} <= {spec.name for spec in entry.outputs}, "outputs")
    by_name = {spec.name: spec for spec in entry.inputs}
    for index, tensor in enumerate(sent.inputs):
        spec, shape = by_name[tensor.name], tuple(tensor.shape)
        must(tensor.datatype == spec.datatype, f"{tensor.name} is {tensor.datatype}")
        must(len(shape) == len(spec.shape), f"{tensor.name} has the shape {shape}")
        must(all(w in (-1, g) for w, g in zip(spec.shape, shape, strict=True)), f"{tensor.name} has the shape {shape}")
        must(math.prod(size or 1 for size in shape) <= MOST_ELEMENTS, f"{tensor.name} has the shape {shape}")
        if entry.max_batch_size:
            must(1 <= shape[0] <= entry.max_batch_size and shape[0] == valid.cost, f"{shape[0]} rows cost {valid.cost}")
        must(count(sent, index) == math.prod(shape), f"{tensor.name} does not have the elements of {shape}")


def count(request: ModelInferRequest, index: int) -> int:
    """How many elements an input has, by its bytes; -1 where they are no whole number of them."""
    tensor = request.inputs[index]
    if not request.raw_input_contents:
        return sum(len(values) for _, values in tensor.contents.ListFields())
    raw = request.raw_input_contents[index]
    if tensor.datatype != "BYTES":
        size = 2 if tensor.datatype == "BF16" else np.dtype(DTYPES[tensor.datatype]).itemsize
        return len(raw) // size if len(raw) % size == 0 else -1
    at = elements = 0
    while at < len(raw):
        at += 4 + int.from_bytes(raw[at : at + 4], "little")
        elements += 1
    return elements if at == len(raw) else -1
