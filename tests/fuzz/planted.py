"""Faults that a target must find, planted in what it calls or in the target itself."""

import os
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property

from google.protobuf.message import DecodeError

from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.queue import ModelEntry
from millrace.tensors import pack_bytes
from millrace.v1.generation_pb2 import GenerateRequest
from services.frontend import parse, rules
from services.frontend.oip.infer import AskedInfer, make_infer
from services.frontend.openai.fields import Fields
from services.frontend.openai.requests import Wanted
from services.frontend.parse import ValidRequest, make_options
from services.frontend.rules import Bounds
from services.worker.batch import engine
from tests.fuzz.target import Target
from tests.fuzz.tensors import Tensors, nothing


def takes_anything(raw: bytes, bounds: Bounds) -> ValidRequest:
    """Decodes and asks nothing: NaN, empty prompts and all."""
    request = parse.decode(GenerateRequest, raw, bounds.max_request_bytes)
    parse.raise_any(rules.check_job(request.job, bounds, attachable=True))
    return parse.valid_generate(request, request.job, bounds)


def raises_value_errors(raw: bytes, bounds: Bounds) -> ValidRequest:
    """Lets protobuf's own error out."""
    try:
        GenerateRequest.FromString(raw)
    except DecodeError as error:
        raise ValueError("not a message") from error
    return parse.parse_generate(raw, bounds)


def looks_at_no_tensor(raw: bytes, bounds: Bounds) -> AskedInfer:
    """Everything about the tensors holds for every model."""
    request = parse.decode(ModelInferRequest, raw, bounds.max_tensor_bytes)
    options = make_options(GenerateRequest().job, bounds)
    asked = make_infer(request, raw, options)
    return Trusting(**{name: getattr(asked, name) for name in AskedInfer.__dataclass_fields__})


def reads_no_settings(fields: Fields) -> Wanted:
    """The prompt alone."""
    request = GenerateRequest(model="tested", text=str(fields.get("prompt")))
    return Wanted(requests=(request,), completions=1, stream=False, with_usage=False)


class Trusting(AskedInfer):
    def against(self, entry: ModelEntry) -> ValidRequest:
        if not entry.outputs:
            return super().against(entry)
        fields = {name: getattr(self, name) for name in ("model", "model_version", "fingerprint", "payload", "options")}
        return ValidRequest(task="infer", cost=1, **fields)


class Unbounded(Tensors):
    """The engine pads whatever it is asked to."""

    name = "unbounded"

    def open(self, stack: ExitStack) -> None:
        super().open(stack)
        engine.PADDING_BYTES = 1 << 60

    @cached_property
    def known(self) -> Sequence[bytes]:
        return [pack_bytes([b"lengths", nothing(1, 2**31 - 1, 0)])]


class Quiet(Target):
    """Takes everything, and does with a few inputs what no input should bring about."""

    name, share = "planted", 4_000
    at = 3
    """The input that does it."""

    def mutant(self, dice: random.Random) -> bytes:
        return dice.randbytes(8)

    def make(self, index: int) -> bytes:
        return b"now" if index == self.at else super().make(index)

    def run(self, data: bytes) -> bool:
        if data == b"now":
            self.misbehave()
        return True

    def misbehave(self) -> None:
        raise NotImplementedError


class Crashes(Quiet):
    def misbehave(self) -> None:
        os.abort()


class Hangs(Quiet):
    """Without using the processor."""

    def misbehave(self) -> None:
        time.sleep(3_600)


class Spins(Quiet):
    """Never ends, and uses the processor all the time."""

    def misbehave(self) -> None:
        while True:
            pass


class Swells(Quiet):
    """Takes 200 MB."""

    growth_bytes = 64 << 20

    def misbehave(self) -> None:
        bytearray(b"x") * (200 << 20)


class Leaves(Quiet):
    """Is content with every input, and at the end finds that something has gone wrong."""

    def misbehave(self) -> None:
        self.wrong = True

    def finish(self) -> None:
        assert not getattr(self, "wrong", False)
