"""Text generation as tensors, the way that Triton's back ends for vLLM and TensorRT-LLM have it.

    text_input BYTES [1]                 the prompt
    stream BOOL [1]                      a response for each result, else one with the whole text
    exclude_input_in_output BOOL [1]     false: the text begins with the prompt, of a stream the first response's.
                                         Unset: as vLLM's back end, a whole text does and a stream does not
    sampling_parameters BYTES [1]        a JSON object of vLLM's names (services.frontend.oip.sampling_parameters)
    max_tokens INT32 [1], …              each of these by itself, as TensorRT-LLM's back end takes them
    return_finish_reason BOOL [1], …     asks for an output beside text_output, as naming it among the outputs does

Shapes may begin with a batch of one, [1, 1]; whole numbers and floats may have any width. The same names go as
parameters of the request. There is no back end's default: what is unset is the model's own (Sampling in protos/).

    text_output BYTES [n]                what is new of each of n completions, of a whole answer all of it
    finish_reason BYTES [n]              "None" before a completion's end, then "stop" or "length"
    num_output_tokens UINT32 [n]         the tokens of this response
    logprobs BYTES [n]                   JSON, "null" where sampling_parameters have no logprobs
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from millrace.errors import InvalidRequest, Violation
from millrace.oip.inference_pb2 import InferParameter, ModelInferRequest
from millrace.queue import ModelEntry
from millrace.tensors import ANY, BYTES, CONTENTS, FORMATS, TensorSpec, unpack_bytes
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_pb2 import JobOptions
from services.frontend.oip.infer import AskedInfer
from services.frontend.oip.sampling_parameters import SETTINGS, Asking, read_flag, renamed
from services.frontend.oip.tensor_rules import CLASSIFICATION, SHOWN_CHARACTERS, check_tensors
from services.frontend.parse import ValidRequest, raise_any, valid_generate
from services.frontend.rules import Bounds, Violations, check_generate

TEXT, STREAM, EXCLUDE, PARAMETERS = "text_input", "stream", "exclude_input_in_output", "sampling_parameters"
TEXT_OUTPUT, FINISH_REASON, OUTPUT_TOKENS, LOGPROBS = "text_output", "finish_reason", "num_output_tokens", "logprobs"
TEXT_OUTPUTS = (
    TensorSpec(TEXT_OUTPUT, BYTES, (ANY,)),
    TensorSpec(FINISH_REASON, BYTES, (ANY,)),
    TensorSpec(OUTPUT_TOKENS, "UINT32", (ANY,)),
    TensorSpec(LOGPROBS, BYTES, (ANY,)),
)
WANTED = {f"return_{output.name}": output.name for output in TEXT_OUTPUTS[1:]}
"""Inputs that ask for an output."""
FLAGS = (STREAM, EXCLUDE, *WANTED)
TEXT_INPUTS = (
    TensorSpec(TEXT, BYTES, (1,)),
    TensorSpec(STREAM, "BOOL", (1,)),
    TensorSpec(EXCLUDE, "BOOL", (1,)),
    TensorSpec(PARAMETERS, BYTES, (1,)),
    *(TensorSpec(name, kind.datatype, (kind.size,)) for name, kind in SETTINGS.items() if kind.datatype),
    *(TensorSpec(name, "BOOL", (1,)) for name in WANTED),
)
OPTIONAL_INPUTS = frozenset(spec.name for spec in TEXT_INPUTS) - {TEXT}
SPECS = {spec.name: spec for spec in TEXT_INPUTS}
FLOATS, WHOLES = ("FP16", "FP32", "FP64"), tuple(name for name in FORMATS if "INT" in name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """A request for text that was checked."""

    valid: ValidRequest
    stream: bool
    prefix: str
    """What each completion's text begins with."""
    outputs: tuple[str, ...]
    """In the order in which they were asked for."""
    completions: int
    has_logprobs: bool
    said: Mapping[str, str]
    """By the path of a field of GenerateRequest, the name under which the caller has said it."""

    def rename(self, error: InvalidRequest) -> InvalidRequest:
        """What a worker finds wrong, under the caller's names."""
        return InvalidRequest([renamed(violation, self.said) for violation in error.violations], reason=error.reason)


def takes_text(entry: ModelEntry) -> bool:
    """Whether tensors for this model are a text in, and a text out."""
    return "generate" in entry.tasks and "infer" not in entry.tasks


def read_text(asked: AskedInfer, bounds: Bounds) -> TextRequest:
    """Raises InvalidRequest with the violations, under the names that the caller has used."""
    message = asked.message
    raise_any(_check_message(message, bounds))
    raise_any(check_tensors(message, _entry(message)))
    asking = Asking(GenerateRequest(model=asked.model, model_version=asked.model_version))
    flags: dict[str, bool] = {}
    raise_any(_read(message, asking, flags))
    raise_any(renamed(violation, asking.said) for violation in check_generate(asking.request))
    stream = flags.get(STREAM, False)
    valid = valid_generate(asking.request, JobOptions(), bounds)
    return TextRequest(
        valid=replace(valid, fingerprint=asked.fingerprint, options=asked.options),
        stream=stream,
        prefix="" if flags.get(EXCLUDE, stream) else asking.request.text,
        outputs=_outputs(message, flags),
        completions=asking.request.sampling.num_completions or 1,
        has_logprobs=asking.request.reporting.HasField("logprobs"),
        said=asking.said,
    )


def _check_message(message: ModelInferRequest, bounds: Bounds) -> Violations:
    if (size := message.ByteSize()) > bounds.max_request_bytes:
        yield Violation("", f"the request has {size} bytes, at most {bounds.max_request_bytes} are taken")
    for index, tensor in enumerate(message.inputs):
        if tensor.name not in SPECS:
            text = f"there is no {tensor.name[:SHOWN_CHARACTERS]!r}; the model has {', '.join(SPECS)}"
            yield Violation(f"inputs[{index}].name", text)
    for index, output in enumerate(message.outputs):
        if CLASSIFICATION in output.parameters:
            yield Violation(f"outputs[{index}].parameters[{CLASSIFICATION}]", "means nothing here")


def _entry(message: ModelInferRequest) -> ModelEntry:
    """A model that takes of TEXT_INPUTS those that the request has, in the request's shapes where these are allowed."""
    inputs = {TEXT: SPECS[TEXT]} | {tensor.name: _spec(tensor) for tensor in message.inputs}
    return ModelEntry(
        name=message.model_name,
        version="",
        task="",
        digest="",
        inputs=tuple(inputs.values()),
        outputs=TEXT_OUTPUTS,
    )


def _spec(tensor: ModelInferRequest.InferInputTensor) -> TensorSpec:
    spec = SPECS[tensor.name]
    alike = next((kinds for kinds in (FLOATS, WHOLES) if spec.datatype in kinds), (spec.datatype,))
    return TensorSpec(
        name=spec.name,
        datatype=tensor.datatype if tensor.datatype in alike else spec.datatype,
        shape=(1, *spec.shape) if len(tensor.shape) == 2 else spec.shape,
    )


def _read(message: ModelInferRequest, asking: Asking, flags: dict[str, bool]) -> Violations:
    for name, value, said in (*_tensors(message), *_parameters(message.parameters)):
        if isinstance(value, UnicodeDecodeError):
            yield Violation(said, "is not UTF-8")
        elif name == TEXT:
            asking.request.text = value
            asking.said |= {"text": said, "prompt": said}
        elif name == PARAMETERS and isinstance(value, str):
            yield from asking.say_all(value, said)
        elif name in SETTINGS:
            yield from asking.say(name, value, said)
        else:
            try:
                flags[name] = read_flag(value)
            except ValueError as error:
                yield Violation(said, str(error))
    if "prompt" not in asking.said:
        asking.said |= {"text": f"inputs[{TEXT}]", "prompt": f"inputs[{TEXT}]"}


def _tensors(message: ModelInferRequest) -> Iterator[tuple[str, Any, str]]:
    """Each input's name, what it holds (a list where it may hold several), and its name in violations."""
    for index, tensor in enumerate(message.inputs):
        try:
            values = _values(message, index)
        except UnicodeDecodeError as error:
            yield tensor.name, error, f"inputs[{tensor.name}]"
            continue
        yield tensor.name, values if SPECS[tensor.name].shape == (ANY,) else values[0], f"inputs[{tensor.name}]"


def _values(message: ModelInferRequest, index: int) -> list[Any]:
    tensor = message.inputs[index]
    if not message.raw_input_contents:
        contents = list(getattr(tensor.contents, CONTENTS[tensor.datatype]))
        return [item.decode() for item in contents] if tensor.datatype == BYTES else contents
    raw = message.raw_input_contents[index]
    if tensor.datatype == BYTES:
        return [item.decode() for item in unpack_bytes(raw)]
    return [value for (value,) in struct.iter_unpack(f"<{FORMATS[tensor.datatype]}", raw)]


def _parameters(parameters: Mapping[str, InferParameter]) -> Iterator[tuple[str, Any, str]]:
    """Those that have an input's name, but for the prompt."""
    for name in sorted(parameters):
        kind = parameters[name].WhichOneof("parameter_choice")
        if kind is not None and (name in OPTIONAL_INPUTS or name in SETTINGS):
            yield name, getattr(parameters[name], kind), f"parameters[{name}]"


def _outputs(message: ModelInferRequest, flags: Mapping[str, bool]) -> tuple[str, ...]:
    named = [output.name for output in message.outputs] or [TEXT_OUTPUT]
    return tuple(dict.fromkeys(named + [WANTED[name] for name in WANTED if flags.get(name)]))
