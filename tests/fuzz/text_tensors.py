"""Text asked for with tensors: raw bytes become a generation, or a refusal in the caller's words."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from millrace.oip.inference_pb2 import InferParameter, ModelInferRequest
from millrace.tensors import pack_bytes
from millrace.v1.generation_pb2 import GenerateRequest, Sampling
from services.frontend.oip.infer import AskedInfer, parse_infer
from services.frontend.oip.sampling_parameters import SETTINGS
from services.frontend.oip.text_tensors import SPECS, TEXT_OUTPUTS, TextRequest, read_text
from services.frontend.rules import Bounds
from tests.fuzz import contracts
from tests.fuzz.mutate import mutate_message
from tests.fuzz.requests import Requests, accepts
from tests.fuzz.samples import BOUNDS, TEXT_ENTRIES
from tests.fuzz.target import must
from tests.fuzz.texts import DIGITS, VALUES_OF_JSON, mutate_json

SETTINGS_SAID: dict[str, Any] = {
    **{"temperature": 0.5, "top_p": "0.75", "top_k": -1, "min_p": None, "max_tokens": "10", "min_tokens": 2.0},
    **{"seed": 2**63, "stop": ["END", "\n"], "n": 2, "presence_penalty": 0.25, "frequency_penalty": -1},
    **{"repetition_penalty": 1.5, "stop_token_ids": [7, "8"], "ignore_eos": "true", "logprobs": 3},
    **{"include_stop_str_in_output": True, "logit_bias": {"3": 1.5, "4": -2}},
}
BAD_JSON = (
    *("", "null", "[]", "7", '"text"', "{", "NaN", '{"temperature": NaN}', '{"top_p": Infinity}', '{"n": 1, "n": 2}'),
    *('{"seed": ' + DIGITS + "}", '{"seed": "' + DIGITS + '"}', '{"temperature": 1e999}', '{"temperature": "1e999"}'),
    *("[" * 100_000, '{"a":' * 100_000, '{"logit_bias": ' + '{"1":' * 50_000, '{"temperature": ' + "[" * 900),
    *('{"\\ud800": 1}', '{"stop": "\\ud800"}', '{"stop": ["\\udfff"]}', '{"\\u0000": 1}', '{"' + "x" * 9_000 + '": 1}'),
    *('{"logit_bias": {"-1": 1}}', '{"logit_bias": {"4294967296": 1}}', '{"logit_bias": {"1": 1e40, " 1": 2}}'),
    *('{"max_tokens": "1_0"}', '{"max_tokens": "１２"}', '{"max_tokens": " 3 "}', '{"temperature": "nan"}'),
    *('{"stop": "' + "x" * 300_000 + '"}', '{"stop_token_ids": [' + "1," * 100_000 + "1]}", "{}" + " " * 300_000),
    *("{" + ", ".join(f'"x{number}": 1' for number in range(20_000)) + "}", '{"n": 4294967295}', '{"n": true}'),
)
WORDS = (b"true", b"false", b"1", b"-1", b"1e400", b"nan", b"\xff", b"\xed\xa0\x80", "１".encode(), b"")
REALS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
Reader = Callable[[AskedInfer, Bounds], TextRequest]


class TextTensors(Requests):
    """`read_text`, and what it accepts against models that say how long their context is, and others."""

    name, share, kind = "text-tensors", 6_000, ModelInferRequest

    def __init__(self, seed: int, reader: Reader = read_text) -> None:
        super().__init__(seed)
        self._read = reader

    def valid(self) -> Sequence[bytes]:
        return list(_requests())

    @cached_property
    def known(self) -> Sequence[bytes]:
        """A setting in each way, with each odd value."""
        bad = [asked(pack_bytes([text.encode()])) for text in BAD_JSON]
        values = [json.dumps({name: value}).encode() for name in SETTINGS for value in VALUES_OF_JSON]
        said = [asked(pack_bytes([value])) for value in values]
        words = [_parameter(name, word) for name in (*SETTINGS, "stream", "sampling_parameters") for word in WORDS[:7]]
        return [*super().known, *bad, *said, *words]

    def mutant(self, dice: random.Random) -> bytes:
        if dice.random() < 0.4:
            return asked(pack_bytes([mutate_json(dice, [json.dumps(SETTINGS_SAID).encode()])]))
        return mutate_message(dice, self._samples if dice.random() < 0.75 else self.shapes)

    @cached_property
    def _samples(self) -> Sequence[bytes]:
        return self.valid()

    def parse(self, raw: bytes) -> bool:
        parsed = parse_infer(raw, BOUNDS)
        read = self._read(parsed, BOUNDS)
        must(read.valid.fingerprint == parsed.fingerprint, "another fingerprint")
        ran = GenerateRequest.FromString(read.valid.payload)
        contracts.check_generation(read.valid, ran)
        must(read.prefix in ("", ran.text), "a prefix that is not the prompt")
        must(read.completions == (ran.sampling.num_completions or 1), f"{read.completions} completions")
        must(read.has_logprobs == ran.reporting.HasField("logprobs"), "log-probabilities")
        must(read.outputs and {*read.outputs} <= {output.name for output in TEXT_OUTPUTS}, f"outputs {read.outputs}")
        request = ModelInferRequest.FromString(raw)
        must(_held(request, "text_input") == ran.text.encode(), "another prompt")
        _check_said(_held(request, "sampling_parameters"), ran.sampling)
        for entry in TEXT_ENTRIES:
            valid = accepts(read.valid, entry)
            must(valid is not None, f"a generation is refused by {entry.name}")
        return True


def asked(settings: bytes | None = None, text: str = "hello") -> bytes:
    """`settings`: the raw contents of sampling_parameters."""
    request = ModelInferRequest(model_name="tested", id="7")
    _add(request, "text_input", pack_bytes([text.encode()]))
    if settings is not None:
        _add(request, "sampling_parameters", settings)
    return request.SerializeToString()


def _add(request: ModelInferRequest, name: str, raw: bytes, count: int = 1, batch: bool = False) -> None:
    shape = (1, count) if batch else (count,)
    request.inputs.add(name=name, datatype=SPECS[name].datatype, shape=shape)
    request.raw_input_contents.append(raw)


def _parameter(name: str, word: bytes) -> bytes:
    request = ModelInferRequest.FromString(asked())
    request.parameters[name].string_param = word.decode(errors="replace")
    return request.SerializeToString()


def _requests() -> Iterator[bytes]:
    """Every way to say a thing."""
    yield asked()
    yield asked(pack_bytes([json.dumps(SETTINGS_SAID).encode()]), "naïve 数据 🙂")
    for batch in (False, True):
        request = ModelInferRequest(model_name="tested")
        _add(request, "text_input", pack_bytes([b"hello"]), batch=batch)
        for name in ("stream", "exclude_input_in_output", "return_finish_reason", "ignore_eos"):
            _add(request, name, b"\1", batch=batch)
        _add(request, "max_tokens", b"\7\0\0\0", batch=batch)
        _add(request, "temperature", b"\0\0\0\x3f", batch=batch)
        _add(request, "seed", b"\xff" * 8, batch=batch)
        _add(request, "stop_words", pack_bytes([b"END", b""]), 2, batch)
        _add(request, "stop_token_ids", b"\7\0\0\0\x08\0\0\0", 2, batch)
        request.outputs.add(name="text_output")
        yield request.SerializeToString()
    typed = ModelInferRequest(model_name="tested")
    typed.inputs.add(name="text_input", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"hello")
    typed.inputs.add(name="top_k", datatype="INT64", shape=[1]).contents.int64_contents.append(3)
    for name, parameter in {
        "temperature": InferParameter(double_param=0.5),
        "max_tokens": InferParameter(int64_param=3),
        "stream": InferParameter(bool_param=True),
        "stop": InferParameter(string_param="END"),
        "millrace_job_id": InferParameter(string_param="job-1"),
        "sampling_parameters": InferParameter(string_param='{"top_p": 0.5}'),
    }.items():
        typed.parameters[name].CopyFrom(parameter)
    yield typed.SerializeToString()


def _check_said(settings: bytes, sampling: Sampling) -> None:
    """What JSON says is what is run."""
    said = json.loads(settings or b"{}")
    for name in REALS:
        if said.get(name) is not None:
            value, ran = float(said[name]), getattr(sampling, name)
            must(abs(ran - value) <= 1e-6 * max(abs(value), 1), f"{name} became {ran}")
    must(said.get("seed") is None or sampling.seed == int(said["seed"]), f"the seed became {sampling.seed}")


def _held(request: ModelInferRequest, name: str) -> bytes:
    """By the tensor of a name, which holds one text; empty where there is none."""
    for index, tensor in enumerate(request.inputs):
        if tensor.name == name:
            return (
                request.raw_input_contents[index][4:]
                if request.raw_input_contents
                else tensor.contents.bytes_contents[0]
            )
    return b""
