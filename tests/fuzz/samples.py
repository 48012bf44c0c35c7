"""Valid requests, in their serialised form, and models that take them."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.duration_pb2 import Duration

from millrace.oip.inference_pb2 import InferParameter, ModelInferRequest
from millrace.queue import ModelEntry
from millrace.tensors import CONTENTS, TensorSpec, pack_bytes
from millrace.v1.generation_pb2 import (
    Conversation,
    GenerateRequest,
    OutputFormat,
    Reporting,
    Sampling,
    Stopping,
    TokenIds,
)
from millrace.v1.job_pb2 import PRIORITY_BATCH, PRIORITY_STANDARD, JobOptions
from millrace.v1.job_service_pb2 import SubmitJobRequest, WatchJobRequest
from millrace.v1.tasks_pb2 import ClassifyRequest, EmbedRequest, TranscribeRequest
from services.frontend.rules import Bounds

BOUNDS = Bounds(
    max_request_bytes=4 << 20,
    max_tensor_bytes=64 << 20,
    default_timeout_s=600.0,
    max_timeout_s=3_600.0,
    max_resume_window_s=600.0,
)
DTYPES = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
PIXELS, TAIL = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff\xff\xff\xff\xff\x08\x06\0\0\0", b"\0" * 64
"""The head of an image that says that it has 2³² × 2³² pixels."""
SOUND = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0" + b"\xff" * 12 + b"\x20\0data\xff\xff\xff\xff"
"""The head of a sound that says that it has 65,535 channels and 4 GB."""


def entry(inputs: dict[str, tuple[str, tuple[int, ...]]], max_batch_size: int = 0, name: str = "tested") -> ModelEntry:
    return ModelEntry(
        name=name,
        version="1",
        task="tensor",
        digest="",
        platform="onnxruntime_onnx",
        inputs=tuple(TensorSpec(name, datatype, shape) for name, (datatype, shape) in inputs.items()),
        outputs=(TensorSpec("y", "FP32", (-1,)), TensorSpec("z", "BYTES", (-1,))),
        max_batch_size=max_batch_size,
    )


def text_entry(context_length: int) -> ModelEntry:
    return ModelEntry(
        name="tested", version="1", task="text-generation", digest="", context_length=context_length, platform="x"
    )


TENSOR_ENTRIES = (
    entry({"x": ("FP32", (-1, 3)), "n": ("INT8", (-1, 1))}, max_batch_size=4),
    entry({"x": ("FP32", (-1, -1, -1))}),
    entry({"x": ("BYTES", (-1,))}),
    entry({"x": ("BYTES", (-1, 2))}, max_batch_size=8),
    entry({"x": ("FP64", ())}),
    entry({"x": ("BF16", (2, -1))}),
    entry({name.lower(): (name, (2,)) for name in DTYPES}),
    entry({}),
    entry({"x": ("INT64", (-1,)), "n": ("INT64", (-1,))}, max_batch_size=32),
)
TEXT_ENTRIES = (text_entry(0), text_entry(128))


def generations() -> Iterator[bytes]:
    """One for each thing that may be asked for."""
    job = JobOptions(
        job_id="job-1",
        priority=PRIORITY_STANDARD,
        timeout=Duration(seconds=9, nanos=5),
        resume_window=Duration(nanos=7),
    )
    turns = [Conversation.Message(role=role, content="hello") for role in ("system", "user")]
    for fields in (
        {"text": "the stop, the end"},
        {"text": "naïve 数据 🙂", "model_version": "1", "job": job},
        {"tokens": TokenIds(ids=[1, 2, 3, 300])},
        {"conversation": Conversation(messages=turns)},
        {
            "text": "x",
            "job": JobOptions(job_id="job-1", after_offset=3, after_history=2**64 - 1, priority=PRIORITY_BATCH),
        },
        {"text": "x", "sampling": Sampling(temperature=0.5, top_k=4, top_p=0.9, min_p=0.1, seed=2**64 - 1)},
        {"text": "x", "sampling": Sampling(repetition_penalty=1, frequency_penalty=-2, presence_penalty=2)},
        {"text": "x", "sampling": Sampling(num_completions=16, logit_bias={1: -1.0, 2: 0.5})},
        {"text": "x", "stopping": Stopping(max_tokens=3, min_tokens=2, stop_strings=["e", "the"], stop_token_ids=[7])},
        {"text": "x", "stopping": Stopping(max_tokens=2, ignore_eos=True, include_stop_string=True)},
        {"text": "x", "output_format": OutputFormat(choices=OutputFormat.Choices(texts=["a", "b"]))},
        {"text": "x", "output_format": OutputFormat(json_schema="{}"), "reporting": Reporting(logprobs=20)},
    ):
        request: dict[str, Any] = {"model": "tested", **fields}
        yield GenerateRequest(**request).SerializeToString()


def infers() -> Iterator[bytes]:
    """For each of TENSOR_ENTRIES with 1, 2 and 4 rows, raw and typed; some of them with parameters."""
    for model, rows, raw in product(TENSOR_ENTRIES, (1, 2, 4), (True, False)):
        request = ModelInferRequest(model_name="tested", id="7")
        for spec in model.inputs:
            shape = tuple(rows if size == -1 else size for size in spec.shape)
            if spec.datatype == "BF16":
                request.inputs.add(name=spec.name, datatype="BF16", shape=shape)
                request.raw_input_contents.append(bytes(2 * int(np.prod(shape))))
            else:
                add_input(request, spec.name, _values(spec.datatype, shape), raw=raw)
        yield request.SerializeToString()
        if rows == 1:
            request.outputs.add(name="y")
            _add_parameters(request)
            yield request.SerializeToString()


def add_input(request: ModelInferRequest, name: str, array: npt.NDArray[Any], *, raw: bool = True) -> None:
    """`array` holds bytes where its type is object."""
    datatype = next((name for name, dtype in DTYPES.items() if array.dtype == dtype), "BYTES")
    tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    if raw or datatype not in CONTENTS:
        packed = pack_bytes(list(array.ravel())) if datatype == "BYTES" else array.tobytes()
        request.raw_input_contents.append(packed)
    else:
        getattr(tensor.contents, CONTENTS[datatype]).extend(array.ravel().tolist())


def _values(datatype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if datatype == "BYTES":
        return np.full(shape, b"text", object)
    return np.ones(shape, DTYPES[datatype])


def _add_parameters(request: ModelInferRequest) -> None:
    for name, value in {
        "millrace_job_id": InferParameter(string_param="job-1"),
        "millrace_resume_window_ms": InferParameter(int64_param=1_000),
        "timeout": InferParameter(uint64_param=2_000_000),
        "priority": InferParameter(int64_param=2),
        "sequence_id": InferParameter(int64_param=0),
        "of the model": InferParameter(bool_param=True),
    }.items():
        request.parameters[name].CopyFrom(value)


def submissions() -> Iterator[bytes]:
    """Every task of SubmitJobRequest."""
    for raw in generations():
        request = GenerateRequest.FromString(raw)
        request.ClearField("job")
        yield SubmitJobRequest(generate=request, job=JobOptions(job_id="job-1")).SerializeToString()
    for raw in infers():
        infer = ModelInferRequest.FromString(raw)
        infer.ClearField("parameters")
        yield SubmitJobRequest(infer=infer).SerializeToString()
    yield SubmitJobRequest(embed=EmbedRequest(model="tested", texts=["a", "b"])).SerializeToString()
    for image in (PIXELS + TAIL, b"\xff\xd8\xff\xe0\0\x10JFIF" + TAIL, b"RIFF\xff\xff\xff\x7fWEBPVP8L" + TAIL):
        yield SubmitJobRequest(classify=ClassifyRequest(model="tested", image=image)).SerializeToString()
    for sound in (SOUND + TAIL, b"fLaC\0\0\0\x22" + b"\xff" * 34):
        yield SubmitJobRequest(classify=ClassifyRequest(model="tested", audio=sound)).SerializeToString()
        yield SubmitJobRequest(transcribe=TranscribeRequest(model="tested", audio=sound)).SerializeToString()


def watches() -> Iterator[bytes]:
    yield WatchJobRequest(job_id="job-1").SerializeToString()
    yield WatchJobRequest(job_id="job-1", after_offset=2**64 - 1, after_history=7).SerializeToString()
