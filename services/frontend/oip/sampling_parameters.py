"""How text is to be generated, under the names that clients of Triton's text generation back ends use.

vLLM's back end takes them as one JSON object, or as parameters of the request, TensorRT-LLM's each as a tensor. Here
all names go in all three ways; each says what a field of GenerateRequest says, and nothing is said twice.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from millrace.errors import Violation
from millrace.v1.generation_pb2 import GenerateRequest
from services.frontend.rules import Violations

MOST_JSON_BYTES = 256 << 10
SHOWN_CHARACTERS = 64
"""Of a name that the caller made up."""
FLAGS = {"true": True, "True": True, "false": False, "False": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One name. `read` makes the field's value of what JSON, a tensor or a parameter gave; it raises ValueError."""

    path: str
    """Of the field; empty where there is none, since only what changes nothing is taken."""
    read: Callable[[Any], Any]
    datatype: str = ""
    """Of the tensor; empty where there is none."""
    size: int = 1
    """Of the tensor; -1 where any number goes."""


def read_number(value: Any) -> float:
    """A number, or one in a string: genai-perf writes them so."""
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a number")


def read_whole(value: Any) -> int:
    try:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise ValueError("must be a whole number")


def read_top_k(value: Any) -> int:
    """-1 means the whole vocabulary to vLLM, as 0 does."""
    whole = read_whole(value)
    return 0 if whole == -1 else whole


def read_flag(value: Any) -> bool:
    flag = FLAGS.get(value) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise ValueError("must be true or false")
    return flag


def read_texts(value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("must be a string, or a list of strings")
    return texts


def read_stop_words(value: Any) -> list[str]:
    """An empty one says nothing: clients of TensorRT-LLM fill the tensor up with them."""
    return [text for text in read_texts(value) if text]


def read_wholes(value: Any) -> list[int]:
    return [read_whole(item) for item in (value if isinstance(value, list) else [value])]


def read_biases(value: Any) -> dict[int, float]:
    if not isinstance(value, dict):
        raise ValueError("must be an object of token ids and biases")
    return {read_whole(token): read_number(bias) for token, bias in value.items()}


def only(neutral: Any, read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Of what is not supported: the value that means that it is not wanted."""

    def check(value: Any) -> Any:
        if read(value) != neutral:
            raise ValueError(f"is not supported: it can only be {json.dumps(neutral)}")

    return check


SETTINGS = {
    "max_tokens": Setting(path="stopping.max_tokens", read=read_whole, datatype="INT32"),
    "min_tokens": Setting(path="stopping.min_tokens", read=read_whole, datatype="INT32"),
    "temperature": Setting(path="sampling.temperature", read=read_number, datatype="FP32"),
    "top_k": Setting(path="sampling.top_k", read=read_top_k, datatype="INT32"),
    "top_p": Setting(path="sampling.top_p", read=read_number, datatype="FP32"),
    "min_p": Setting(path="sampling.min_p", read=read_number, datatype="FP32"),
    "repetition_penalty": Setting(path="sampling.repetition_penalty", read=read_number, datatype="FP32"),
    "presence_penalty": Setting(path="sampling.presence_penalty", read=read_number, datatype="FP32"),
    "frequency_penalty": Setting(path="sampling.frequency_penalty", read=read_number, datatype="FP32"),
    "seed": Setting(path="sampling.seed", read=read_whole, datatype="UINT64"),
    "random_seed": Setting(path="sampling.seed", read=read_whole, datatype="UINT64"),
    "n": Setting(path="sampling.num_completions", read=read_whole, datatype="INT32"),
    "num_return_sequences": Setting(path="sampling.num_completions", read=read_whole, datatype="INT32"),
    "stop": Setting(path="stopping.stop_strings", read=read_texts, datatype="BYTES", size=-1),
    "stop_words": Setting(path="stopping.stop_strings", read=read_stop_words, datatype="BYTES", size=-1),
    "stop_token_ids": Setting(path="stopping.stop_token_ids", read=read_wholes, datatype="INT32", size=-1),
    "ignore_eos": Setting(path="stopping.ignore_eos", read=read_flag, datatype="BOOL"),
    "include_stop_str_in_output": Setting(path="stopping.include_stop_string", read=read_flag, datatype="BOOL"),
    "logprobs": Setting(path="reporting.logprobs", read=read_whole, datatype="INT32"),
    "logit_bias": Setting(path="sampling.logit_bias", read=read_biases),
    "beam_width": Setting(path="", read=only(1, read_whole), datatype="INT32"),
    "length_penalty": Setting(path="", read=only(1, read_number), datatype="FP32"),
    "bad_words": Setting(path="", read=only([], read_stop_words), datatype="BYTES", size=-1),
    "use_beam_search": Setting(path="", read=only(False, read_flag)),
    "skip_special_tokens": Setting(path="", read=only(True, read_flag)),
    "spaces_between_special_tokens": Setting(path="", read=only(True, read_flag)),
}


class Asking:
    """A GenerateRequest while it is filled in. `said` has by a field's path the name under which the caller said it."""

    def __init__(self, request: GenerateRequest) -> None:
        self.request = request
        self.said: dict[str, str] = {}

    def say(self, name: str, value: Any, said: str) -> Violations:
        """Sets the field of a name in SETTINGS; `said` is where the caller has it."""
        setting = SETTINGS[name]
        if setting.path in self.said:
            yield Violation(said, f"is said by {self.said[setting.path]} too")
            return
        try:
            read = setting.read(value)
        except ValueError as error:
            yield Violation(said, str(error))
            return
        if setting.path:
            self.said[setting.path] = said
            yield from self._fill(setting.path, read, said)

    def _fill(self, path: str, value: Any, said: str) -> Violations:
        section, _, field = path.partition(".")
        message = getattr(self.request, section)
        try:
            if isinstance(value, list):
                getattr(message, field).extend(value)
            elif isinstance(value, dict):
                getattr(message, field).update(value)
            else:
                setattr(message, field, value)
        except ValueError:
            yield Violation(said, "is out of range")

    def say_all(self, text: str, said: str) -> Violations:
        """A JSON object of settings; what is null is unset."""
        if len(text) > MOST_JSON_BYTES:
            yield Violation(said, f"must be at most {MOST_JSON_BYTES} bytes")
            return
        try:
            settings = json.loads(text)
        except (ValueError, RecursionError):
            settings = None
        if not isinstance(settings, dict):
            yield Violation(said, "must be a JSON object")
            return
        for name, value in settings.items():
            field = f"{said}.{name[:SHOWN_CHARACTERS]}"
            if name not in SETTINGS:
                yield Violation(field, f"is not known; there are {', '.join(SETTINGS)}")
            elif value is not None:
                yield from self.say(name, value, field)


def renamed(violation: Violation, said: Mapping[str, str]) -> Violation:
    """Under the name that the caller knows."""
    path, bracket, index = violation.field.partition("[")
    return Violation(said.get(path, path) + bracket + index, violation.description)
