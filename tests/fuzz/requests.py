"""The frontend's parsers: raw bytes become a valid request, or a refusal that can be told to the caller."""

import random
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

from google.protobuf.message import Message

from millrace.errors import Code, MillraceError
from millrace.oip.inference_pb2 import ModelInferRequest, ModelMetadataRequest, ModelReadyRequest
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_service_pb2 import CancelJobRequest, GetJobRequest, SubmitJobRequest, WatchJobRequest
from services.frontend.access.credentials import TENANT as TENANT_KEY
from services.frontend.access.gate import OpenGate
from services.frontend.call import Context, GrpcCall
from services.frontend.oip.infer import AskedInfer, parse_infer
from services.frontend.parse import Asked, Position, ValidRequest, check_job_id, decode, parse_generate, parse_watch
from services.frontend.rules import Bounds
from services.frontend.submit import parse_submit
from services.frontend.typed import TYPED
from tests.fuzz import bombs, contracts, samples
from tests.fuzz.mutate import mutate_bytes, mutate_message
from tests.fuzz.samples import BOUNDS, TENSOR_ENTRIES, TEXT_ENTRIES
from tests.fuzz.shapes import examples
from tests.fuzz.target import Target, must

REFUSALS = (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED)
SHAPES = 200
"""Messages that Hypothesis draws for each kind."""
DECODERS = frozenset({"PIL", "cv2", "imageio", "soundfile", "wave", "aifc", "torchaudio"})
"""Modules that a frontend would need for looking into an image or a sound."""


class Requests(Target):
    """Raw bytes for one parser."""

    kind: ClassVar[type[Message]]

    @cached_property
    def known(self) -> Sequence[bytes]:
        return (b"", *self.valid())

    @cached_property
    def shapes(self) -> Sequence[bytes]:
        return examples(self.kind, SHAPES, self.seed)

    def valid(self) -> Sequence[bytes]:
        raise NotImplementedError

    def parse(self, raw: bytes) -> bool:
        """Whether the code under test takes it. Raises its refusal, or Finding."""
        raise NotImplementedError

    def mutant(self, dice: random.Random) -> bytes:
        return mutate_message(dice, self.known if dice.random() < 0.75 else self.shapes)

    def run(self, data: bytes) -> bool:
        try:
            return self.parse(data)
        except MillraceError as error:
            contracts.check_refusal(error, *REFUSALS)
            return False


class Generations(Requests):
    """parse_generate, and what it accepts against a model that says how long its context is, and one that does not."""

    name, share, kind = "generate", 20_000, GenerateRequest

    def __init__(self, seed: int, parser: Callable[[bytes, Bounds], ValidRequest] = parse_generate) -> None:
        super().__init__(seed)
        self._parse = parser

    def valid(self) -> Sequence[bytes]:
        return list(samples.generations())

    def parse(self, raw: bytes) -> bool:
        parsed = self._parse(raw, BOUNDS)
        again = self._parse(raw, BOUNDS)
        must(parsed.fingerprint == again.fingerprint, "the fingerprint changes")
        _check_generation(parsed, GenerateRequest.FromString(raw))
        return True


class Infers(Requests):
    """parse_infer, and what it accepts against models with every kind of signature."""

    name, share, kind = "infer", 20_000, ModelInferRequest

    def __init__(self, seed: int, parser: Callable[[bytes, Bounds], AskedInfer] = parse_infer) -> None:
        super().__init__(seed)
        self._parse = parser

    def valid(self) -> Sequence[bytes]:
        return list(samples.infers())

    def parse(self, raw: bytes) -> bool:
        parsed = self._parse(raw, BOUNDS)
        must(parsed.payload == raw, "the payload is not what came")
        contracts.check_options(parsed.options)
        return _check_infer(parsed, ModelInferRequest.FromString(raw))


class Submissions(Requests):
    """parse_submit with every task. Nothing looks into an image or a sound."""

    name, share, kind = "submit", 16_000, SubmitJobRequest

    def valid(self) -> Sequence[bytes]:
        return list(samples.submissions())

    def parse(self, raw: bytes) -> bool:
        asked, before = SubmitJobRequest(), DECODERS & sys.modules.keys()
        try:
            parsed = parse_submit(raw, BOUNDS)
            asked.ParseFromString(raw)
        finally:
            loaded = DECODERS & sys.modules.keys() - before
            must(not loaded, f"{loaded} was loaded, which decodes images or sounds")
        contracts.check_durations(asked.job, parsed.options)
        must(parsed.options.position == Position(), "a submission that begins behind an offset")
        task = asked.WhichOneof("task") or ""
        if task == "infer":
            return _check_infer(parsed, asked.infer)
        must(isinstance(parsed, ValidRequest) and parsed.task == task, f"{task} became {parsed}")
        must(not getattr(asked, task).HasField("job"), "options of the task's own")
        if task == "generate":
            asked.generate.job.CopyFrom(asked.job)
            _check_generation(cast(ValidRequest, parsed), asked.generate)
        else:
            must(task in TYPED, f"{task} is not served")
            contracts.check_typed(cast(ValidRequest, parsed), getattr(asked, task))
        return True


class Watches(Requests):
    name, share, kind = "watch", 4_760, WatchJobRequest

    def valid(self) -> Sequence[bytes]:
        return list(samples.watches())

    def parse(self, raw: bytes) -> bool:
        job_id, position = parse_watch(raw, BOUNDS)
        asked = WatchJobRequest.FromString(raw)
        must(contracts.ID.match(job_id) and job_id == asked.job_id, f"job_id {job_id!r}")
        must(position.offset == asked.after_offset, f"offset {position.offset}")
        history = int.from_bytes(position.history, "little")
        must(history == asked.after_history and len(position.history) in (0, 8), "history")
        return True


class Lookups(Requests):
    """The requests that name a job or a model and say nothing else."""

    name, share, kind = "lookups", 5_000, ModelMetadataRequest

    def valid(self) -> Sequence[bytes]:
        kinds = (GetJobRequest(job_id="job-1"), ModelReadyRequest(name="tested", version="1"))
        return [message.SerializeToString() for message in kinds]

    def parse(self, raw: bytes) -> bool:
        for kind in (ModelReadyRequest, ModelMetadataRequest, CancelJobRequest):
            decode(kind, raw, BOUNDS.max_request_bytes)
        job_id = decode(GetJobRequest, raw, BOUNDS.max_request_bytes).job_id
        check_job_id(job_id)
        must(contracts.ID.match(job_id), f"job_id {job_id!r}")
        return True


class Bombs(Requests):
    """Requests that would cost far more than their bytes, of any size up to the largest."""

    name, share = "bombs", 40
    growth_bytes = 640 << 20

    @cached_property
    def known(self) -> Sequence[bytes]:
        return ()

    def make(self, index: int) -> bytes:
        """Each once at its largest, then at any size."""
        dice = random.Random(f"{self.seed}/{self.name}/{index}")
        kinds = (*((b"g", bomb) for bomb in bombs.GENERATIONS), *((b"i", bomb) for bomb in bombs.INFERS))
        letter, bomb = kinds[index] if index < len(kinds) else dice.choice(kinds)
        most = (BOUNDS.max_request_bytes if letter == b"g" else BOUNDS.max_tensor_bytes) - 100
        return letter + bomb(most if index < len(kinds) else int(most ** dice.uniform(0.5, 1)))

    def parse(self, raw: bytes) -> bool:
        parse, entries = (
            (parse_generate, TEXT_ENTRIES) if raw[:1] == b"g" else (parse_infer, (*TENSOR_ENTRIES, *TEXT_ENTRIES))
        )
        parsed = cast(Asked, parse(raw[1:], BOUNDS))
        return any(accepts(parsed, entry) is not None for entry in entries)


class Tenants(Target):
    """A call's metadata: whose call it is."""

    name, share = "tenant", 4_000
    VALUES = ("a", "tenant-1", "default", "A.b_c-9" * 9, "a" * 64, "", "a" * 65, "a b", "a\n", "ü", "..", "a:b", "{a}")

    def mutant(self, dice: random.Random) -> bytes:
        value = dice.choice(self.VALUES).encode()
        return value if dice.random() < 0.3 else mutate_bytes(dice, value, b"x-y")

    def run(self, data: bytes) -> bool:
        """As text in the tenant's key, behind other keys; the same in a key for bytes, which is not the tenant's."""
        text = data.decode("latin-1")
        call = GrpcCall(cast(Context, Metadata((("x", "y"), (f"{TENANT_KEY}-bin", data), (TENANT_KEY, text)))), 1.0)
        try:
            tenant = OpenGate().admit(call.credentials).tenant
        except MillraceError as error:
            contracts.check_refusal(error, Code.INVALID_ARGUMENT)
            return False
        must(tenant == text and 1 <= len(tenant) <= 64 and tenant.isascii() and tenant.isprintable(), repr(tenant))
        must(not set(tenant) & set(" :{}/\\"), f"a tenant {tenant!r} that would break a key")
        return True


class Metadata:
    """The part of a call's context that tells its metadata."""

    def __init__(self, pairs: tuple[tuple[str, Any], ...]) -> None:
        self._pairs = pairs

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...]:
        return self._pairs


def _check_generation(parsed: ValidRequest, asked: GenerateRequest) -> None:
    contracts.check_durations(asked.job, parsed.options)
    for entry in TEXT_ENTRIES:
        valid = accepts(parsed, entry)
        must(valid is not None, f"a generation is refused by {entry.name}")
        contracts.check_request(cast(ValidRequest, valid), entry)
    must(accepts(parsed, TENSOR_ENTRIES[0]) is None, "a model of tensors takes a text")
    contracts.check_generation(parsed, asked)


def _check_infer(parsed: Asked, asked: ModelInferRequest) -> bool:
    """Whether any of the models takes it."""
    must(accepts(parsed, TEXT_ENTRIES[0]) is None, "a model of texts takes tensors")
    accepted = False
    for entry in TENSOR_ENTRIES:
        if (valid := accepts(parsed, entry)) is not None:
            contracts.check_request(valid, entry)
            contracts.check_infer(valid, asked, entry)
            accepted = True
    return accepted


def accepts(parsed: Asked, entry: Any) -> ValidRequest | None:
    try:
        return parsed.against(entry)
    except MillraceError as error:
        contracts.check_refusal(error, *REFUSALS)
        return None
