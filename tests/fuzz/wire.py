"""A frontend and a worker as real processes, and a client that says anything: every call ends with a status that is
documented, and the processes go on as if nothing had been."""

import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import grpc
import psutil
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from millrace.oip import inference_pb2 as oip
from millrace.tensors import pack_bytes, unpack_bytes
from millrace.v1.generation_pb2 import GenerateResponse
from millrace.v1.job_service_pb2 import CancelJobRequest, GetJobRequest
from tests import graphs
from tests.fuzz import bombs, samples
from tests.fuzz.generation import GOOD
from tests.fuzz.models import MODELS as MODELS_OF_TASKS
from tests.fuzz.models import transcriber
from tests.fuzz.mutate import TEXTS, mutate_message
from tests.fuzz.served import SERVED
from tests.fuzz.target import Target, must
from tests.fuzz.tensors import request
from tests.fuzz.text_tensors import asked
from tests.processes import Service, Valkey
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet


def _trace(name: str) -> oip.TraceSettingRequest:
    request = oip.TraceSettingRequest()
    request.settings[name].value.append("OFF")
    return request


def _log(name: str) -> oip.LogSettingsRequest:
    request = oip.LogSettingsRequest()
    request.settings[name].uint32_param = 0
    return request


Pairs: TypeAlias = Sequence[tuple[str, str | bytes]]
DEADLINE_S = 8.0
MOST_MESSAGES = 20
"""Of a stream; then the client goes away."""
SETTLED = 300
"""After so many inputs the frontend has what it needs; from then on its memory should stay."""
GROWTH_BYTES = 48 << 20
BOMB_BYTES = 3 << 20
MODELS = ("affine", "embedding", "texts")
GENERATE, INFER = "/millrace.v1.TextGenerationService/Generate", "/inference.GRPCInferenceService/ModelInfer"
JOBS, OIP, FLEET = "/millrace.v1.JobService/", "/inference.GRPCInferenceService/", "/millrace.v1.FleetService/"
NAMED, TRUTH = oip.ModelRepositoryParameter(string_param="{}"), oip.ModelRepositoryParameter(bool_param=True)
STREAM_INFER, TRANSCRIBE = f"{OIP}ModelStreamInfer", "/millrace.v1.SpeechService/Transcribe"
STREAMS = frozenset({GENERATE, TRANSCRIBE, f"{JOBS}WatchJob"})
EXTENSIONS: Mapping[str, Sequence[Message]] = {
    "ModelConfig": [oip.ModelConfigRequest(name="affine", version="1")],
    "ModelStatistics": [oip.ModelStatisticsRequest(), oip.ModelStatisticsRequest(name="affine")],
    "RepositoryIndex": [oip.RepositoryIndexRequest(ready=True)],
    "RepositoryModelLoad": [oip.RepositoryModelLoadRequest(model_name="nobody", parameters={"config": NAMED})],
    "RepositoryModelUnload": [
        oip.RepositoryModelUnloadRequest(model_name="nobody", parameters={"unload_dependents": TRUTH})
    ],
    "SystemSharedMemoryRegister": [oip.SystemSharedMemoryRegisterRequest(name="a", key="b", byte_size=1)],
    "CudaSharedMemoryStatus": [oip.CudaSharedMemoryStatusRequest(name="a")],
    "TraceSetting": [oip.TraceSettingRequest(model_name="affine"), *(_trace(name) for name in ("trace_level", "x"))],
    "LogSettings": [oip.LogSettingsRequest(), *(_log(name) for name in ("log_verbose_level", "log_file"))],
}
"""Of the Open Inference Protocol: by method, what it takes."""
REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
    }
)
JOB_FAILED = frozenset({"MODEL_FAILED", "NAN_LOGITS"})
"""Reasons of a job's own end for which INTERNAL is the documented code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The processes, and a channel to the frontend."""

    valkey: Valkey
    frontend: Service
    worker: Service
    channel: grpc.Channel


@contextmanager
def started() -> Iterator[Running]:
    with TemporaryDirectory() as folder, Valkey() as valkey:
        write_stub(Path(folder), name="tested", slots=256, step_ms=0)
        for name in MODELS:
            graphs.write_graph(Path(folder), name, SERVED[name].graph())
        shutil.copytree(transcriber().parent, Path(folder) / "tones")
        fleet = Fleet(valkey, Path(folder), {"MILLRACE_THREADS": "1", "MILLRACE_OPENAI": "true"})
        with (
            fleet.add_frontend() as frontend,
            fleet.add_worker() as worker,
            grpc.insecure_channel(fleet.addresses[0]) as channel,
        ):
            yield Running(valkey=valkey, frontend=frontend, worker=worker, channel=channel)


class OverTheWire(Target):
    """Holds the processes, unless it is given some, and looks at them at the end."""

    address_space_bytes = None

    def __init__(self, seed: int, running: Running | None = None) -> None:
        super().__init__(seed)
        self._given = running

    def open(self, stack: ExitStack) -> None:
        running = self._given or stack.enter_context(started())
        self.frontend, self.worker, self.channel = running.frontend, running.worker, running.channel
        self._inputs, self._settled_bytes, self._logged = 0, 0, len(self.frontend.log)
        self._check_service()

    def run(self, data: bytes) -> bool:
        accepted = self.send(data)
        self._inputs += 1
        if self._inputs == SETTLED:
            self._settled_bytes = _memory(self.frontend)
        for service in (self.frontend, self.worker):
            must(service.returncode is None, f"a process died: {service.log[-1_000:]}")
        return accepted

    def send(self, data: bytes) -> bool:
        raise NotImplementedError

    def finish(self) -> None:
        self._check_service()
        must(
            "call.failed" not in self.frontend.log[self._logged :],
            "the frontend has logged an error that nobody expected",
        )
        if self._settled_bytes:
            grown = _memory(self.frontend) - self._settled_bytes
            must(grown < GROWTH_BYTES, f"the frontend holds {grown >> 20} MB more than at first")

    def _streamed(self, path: str) -> "grpc.UnaryStreamMultiCallable[bytes, bytes]":
        return self.channel.unary_stream(path, _as_it_is, _as_it_is)

    def _called(self, path: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        return self.channel.unary_unary(path, _as_it_is, _as_it_is)

    def _check_service(self) -> None:
        """A text and a tensor are answered as ever."""
        stream = self._streamed(GENERATE)(GOOD, timeout=DEADLINE_S, wait_for_ready=True)
        tokens = sum(len(delta.token_ids) for raw in stream for delta in GenerateResponse.FromString(raw).deltas)
        must(tokens == 4, f"a good request gives {tokens} tokens")
        answer = self._called(INFER)(request("affine", SERVED["affine"].feed), timeout=DEADLINE_S)
        must(b"affine" in answer, "a good request has another answer")


def _as_it_is(message: bytes) -> bytes:
    return message


def _memory(service: Service) -> int:
    held: int = psutil.Process(service.pid).memory_info().rss
    return held


class Calls(OverTheWire):
    """An input is a method, metadata as JSON, and a body."""

    name, share = "wire", 3_000

    @cached_property
    def bodies(self) -> Mapping[str, Sequence[bytes]]:
        """By method: what it takes."""
        job, model = GetJobRequest(job_id="job-1").SerializeToString(), b"\x0a\x06affine\x12\x011"
        return {
            GENERATE: [GOOD, *samples.generations()],
            STREAM_INFER: [request(name, SERVED[name].feed) for name in MODELS] + [asked()],
            TRANSCRIBE: [b"\x0a\x05tones" + MODELS_OF_TASKS["transcriber"].good[8:]],
            "/millrace.v1.EmbeddingService/Embed": [MODELS_OF_TASKS["embedding"].good],
            "/millrace.v1.ClassificationService/Classify": [MODELS_OF_TASKS["crop"].good],
            **{f"{OIP}{name}": [one.SerializeToString() for one in known] for name, known in EXTENSIONS.items()},
            INFER: [*(request(name, SERVED[name].feed) for name in MODELS), asked(), *samples.infers()],
            f"{JOBS}SubmitJob": list(samples.submissions()),
            f"{JOBS}WatchJob": list(samples.watches()),
            f"{JOBS}GetJob": [job],
            f"{JOBS}CancelJob": [CancelJobRequest(job_id="job-1").SerializeToString()],
            f"{OIP}ModelReady": [model],
            f"{OIP}ModelMetadata": [model],
            **{f"{OIP}{name}": [b""] for name in ("ServerLive", "ServerReady", "ServerMetadata")},
            **{f"{FLEET}{name}": [b""] for name in ("ListModels", "ListWorkers")},
            **{path: [b"", GOOD] for path in (f"{JOBS}", "/", "/a/b", "/a/" + "x" * 3_000)},
        }

    @cached_property
    def known(self) -> Sequence[bytes]:
        valid = [case(path, (), body) for path, bodies in self.bodies.items() for body in (b"", b"\xff", *bodies)]
        small = [bomb(BOMB_BYTES) for bomb in bombs.GENERATIONS]
        return [
            *valid,
            *(case(GENERATE, (), bomb) for bomb in small),
            *(case(INFER, (), bomb(BOMB_BYTES)) for bomb in bombs.INFERS),
            *(case(f"{OIP}ModelMetadata", (), bombs.field(1, b"\xc3\xbc" * size)) for size in (100, 10_000, 1_000_000)),
            *(case(f"{JOBS}GetJob", (), bombs.field(1, b"\xc3\xbc" * size)) for size in (100, 1_000_000)),
        ]

    def mutant(self, dice: random.Random) -> bytes:
        path = dice.choice((GENERATE, GENERATE, INFER, INFER, f"{JOBS}SubmitJob", *self.bodies))
        body = mutate_message(dice, self.bodies[path]) if self.bodies[path] != [b""] else dice.choice(TEXTS)
        return case(path, _metadata(dice) if dice.random() < 0.3 else (), body)

    def send(self, data: bytes) -> bool:
        path, pairs, body = unpack_bytes(data)
        metadata = tuple((key, bytes.fromhex(value) if raw else value) for key, value, raw in json.loads(pairs))
        try:
            if path.decode() == STREAM_INFER:
                self._stream(body, metadata)
            elif path.decode() in STREAMS:
                call = self._streamed(path.decode())(body, timeout=DEADLINE_S, metadata=metadata)
                list(islice(call, MOST_MESSAGES))
                call.cancel()
            else:
                self._called(path.decode())(body, timeout=DEADLINE_S, metadata=metadata)
        except grpc.RpcError as error:
            check_status(error, big_metadata=sum(len(key) + len(value) for key, value in metadata) > 2_000)
            return False
        except ValueError:
            return False
        return True

    def _stream(self, body: bytes, metadata: Pairs) -> None:
        """Twice, around a good request, which is answered where the call's metadata do not forbid it."""
        sent = [body, request("affine", SERVED["affine"].feed), body]
        method = self.channel.stream_stream(STREAM_INFER, _as_it_is, _as_it_is)
        answers = [
            oip.ModelStreamInferResponse.FromString(answer)
            for answer in method(iter(sent), timeout=DEADLINE_S, metadata=tuple(metadata))
        ]
        named = [answer.infer_response.model_name for answer in answers if not answer.error_message]
        must(metadata or "affine" in named, f"a good request within a stream is not answered: {named}")


def case(path: str, metadata: Pairs, body: bytes) -> bytes:
    pairs = [(key, value.hex(), True) if isinstance(value, bytes) else (key, value, False) for key, value in metadata]
    return pack_bytes([path.encode(), json.dumps(pairs).encode(), body])


def _metadata(dice: random.Random) -> Pairs:
    """Some that gRPC's client itself refuses, and some that it sends."""
    keys = (
        "millrace-tenant",
        "millrace-tenant",
        "millrace-job-id",
        "x-y",
        "grpc-timeout",
        "te",
        "user-agent",
        "A",
        ":path",
    )
    values = ("a", "tenant-1", "", "a b", "~" * 70, "x" * 6_000, "ü", "a\n", "{", "1n", "\x7f", "%00")
    texts: list[tuple[str, str | bytes]] = [(dice.choice(keys), dice.choice(values)) for _ in range(dice.randint(1, 3))]
    binary = (
        dice.choice(("millrace-tenant-bin", "grpc-status-details-bin", "x-bin")),
        dice.randbytes(dice.choice((0, 9, 3_000))),
    )
    return [*texts, binary] if dice.random() < 0.3 else texts


def check_status(error: Any, *, big_metadata: bool = False) -> None:
    """It is a documented code, and says why in a way that programs can read; gRPC's own refusals aside, of
    which one is the client's."""
    code, details = error.code(), error.details() or ""
    if details == "Invalid metadata":
        return
    must(code in REFUSED, f"ended with {code.name}: {details:.200}")
    reason = _reason(error)
    if code is grpc.StatusCode.INTERNAL:
        must(reason in JOB_FAILED, f"INTERNAL: {reason} {details:.200}")
    if not reason:
        own = code is grpc.StatusCode.UNIMPLEMENTED and details == "Method not found!"
        must(own or big_metadata, f"{code.name} without a reason: {details:.200}")


def _reason(error: Any) -> str:
    trailer = dict(error.trailing_metadata() or ())
    for detail in Status.FromString(trailer.get("grpc-status-details-bin", b"")).details:
        info = ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
