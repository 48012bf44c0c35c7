"""Bodies and cursors for OpenAI's API: raw bytes become generations or embeddings, or an error object."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from millrace.errors import Code, InvalidRequest, MillraceError
from millrace.tensors import pack_bytes, unpack_bytes
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_pb2 import JobOptions
from services.frontend.openai.embeddings import read_embeddings
from services.frontend.openai.errors import to_refusal
from services.frontend.openai.events import Cursor
from services.frontend.openai.fields import Fields, parse_object
from services.frontend.openai.requests import Wanted
from services.frontend.openai.styles import Chat, Text
from services.frontend.parse import ValidRequest, raise_any, valid_generate
from services.frontend.rules import check_generate
from services.frontend.typed import check_embed, valid_typed
from tests.fuzz import contracts
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.requests import accepts
from tests.fuzz.samples import BOUNDS, TEXT_ENTRIES
from tests.fuzz.target import Target, must
from tests.fuzz.texts import DIGITS, VALUES_OF_JSON, mutate_json

TEXT, CHAT, EMBED, CURSOR = (b"/v1/completions", b"/v1/chat/completions", b"/v1/embeddings", b"Last-Event-ID")
MOST_BODY, MOST_HEADER = 16_000, 1_000
"""Bytes of an error."""
MOST_PROMPTS = 16
COMMON: Mapping[str, Any] = {
    **{"model": "tested/1", "temperature": 0.5, "top_p": 0.75, "top_k": -1, "min_p": 0, "seed": -7, "n": 2},
    **{"frequency_penalty": -1, "presence_penalty": 0.25, "repetition_penalty": 1.5, "max_tokens": 10, "min_tokens": 2},
    **{"stop": ["END", "\n"], "stop_token_ids": [7], "ignore_eos": True, "logit_bias": {"3": 1.5, "4": -2}},
    **{"stream": False, "user": "u", "tools": [], "best_of": 2, "include_stop_str_in_output": True},
}
PARTS = [{"type": "text", "text": "hello"}, {"type": "text", "text": "🙂"}]
MESSAGES = [
    {"role": "developer", "content": "be kind"},
    {"role": "user", "content": PARTS, "name": "x"},
    {"role": "assistant", "content": None, "tool_calls": []},
]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
BODIES: Sequence[tuple[bytes, Mapping[str, Any]]] = (
    *((TEXT, {"model": "tested", "prompt": prompt}) for prompt in ("hello", [1, 2, 300], ["a", "b"], [[1], [2, 3]])),
    (TEXT, {**COMMON, "prompt": "naïve 数据 🙂", "logprobs": 3, "echo": True}),
    (TEXT, {"model": "tested", "prompt": "x", "stream": True, "stream_options": {"include_usage": True}}),
    (TEXT, {"model": "tested", "prompt": [1], "echo": True, "max_tokens": 0}),
    (TEXT, {"model": "tested", "prompt": "x", "guided_json": SCHEMA}),
    (TEXT, {"model": "tested", "prompt": "x", "structured_outputs": {"choice": ["a", "b"]}}),
    (CHAT, {"model": "tested", "messages": [{"role": "user", "content": "hello"}]}),
    (CHAT, {**COMMON, "messages": MESSAGES, "logprobs": True, "top_logprobs": 2, "max_completion_tokens": 3}),
    *(
        (CHAT, {"model": "tested", "messages": MESSAGES[:1], "response_format": response_format})
        for response_format in (
            {"type": "text"},
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
        )
    ),
    (EMBED, {"model": "tested", "input": "hello"}),
    (EMBED, {"model": "tested", "input": ["a", "b"], "encoding_format": "base64", "dimensions": None}),
)
CURSORS = (
    *(b"job-1.3.00000000000000ff", b"job-1.3.00000000000000ff.u", b"a.18446744073709551615.ffffffffffffffff.utd.1-2"),
    *(b"", b".", b"job-1.3.", b"job-1.18446744073709551616.00000000000000ff", b"j.0.0000000000000000.d.999999999"),
    *(b"x" * 5_000, b"job-1.3.00000000000000ff\n", b"job-1.\xd9\xa3.00000000000000ff", b"9" * 5_000 + b".1.", b"\xff"),
)
RAW = (
    *(b"", b"null", b"[]", b"7", b'"x"', b"{", b"{}", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b'{"model": "\xff"}'),
    *(
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"n": ' + DIGITS.encode() + b"}",
    ),
    *(b'{"temperature": NaN}', b'{"temperature": -Infinity}', b'{"temperature": 1e999}', b'{"seed": 1e400}'),
    *(b'{"model": "\\ud800"}', b'{"model": "t", "prompt": "\\udfff\\ud800"}', b'{"\\ud83d": 1, "model": "x"}'),
    *(b'{"model": "t", "model": "u", "prompt": 1, "prompt": "x"}', b'{"a": [' + b"1," * 600_000 + b"1]}"),
    *(b'{"model": "t", "prompt": [' + b"7," * 200_000 + b"7]}", b'{"a": "' + b"\\u0000" * 100_000 + b'"}'),
    *(b'{"model": "t", "prompt": "x", "stop": [' + b'"",' * 100_000 + b'""]}', b"{" + b" " * 1_000_000 + b"}"),
    b'{"model": "t", "prompt": "x", "logit_bias": {' + b",".join(b'"%d":1' % at for at in range(100_000)) + b"}}",
    b'{"model": "t", "prompt": "x", "guided_json": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
    b'{"model": "t", "messages": [' + b'{"role":"user","content":"x"},' * 50_000 + b'{"role":"user"}]}',
)
Reader = Callable[[Fields], Wanted]


class OpenAI(Target):
    """An input is a path and a body, or a cursor."""

    name, share = "openai", 6_000
    growth_bytes = 128 << 20

    def __init__(self, seed: int, readers: Mapping[bytes, Reader] | None = None) -> None:
        super().__init__(seed)
        self._readers = readers or {TEXT: Text().read, CHAT: Chat().read}

    @cached_property
    def known(self) -> Sequence[bytes]:
        """Each body, and each field of the largest ones with each odd value."""
        bodies = [pack_bytes([path, json.dumps(body).encode()]) for path, body in BODIES]
        odd = [
            pack_bytes([path, json.dumps({**body, field: value}).encode()])
            for path, body in (BODIES[4], BODIES[10], BODIES[-1])
            for field in body
            for value in VALUES_OF_JSON
        ]
        raw = [pack_bytes([path, body]) for path in (TEXT, CHAT, EMBED) for body in RAW]
        return [*bodies, *raw, *(pack_bytes([CURSOR, cursor]) for cursor in CURSORS), *odd]

    def mutant(self, dice: random.Random) -> bytes:
        if dice.random() < 0.15:
            return pack_bytes([CURSOR, mutate_bytes(dice, dice.choice(CURSORS[:3]), dice.choice(CURSORS))])
        path = dice.choice((TEXT, TEXT, CHAT, CHAT, EMBED))
        bodies = [json.dumps(body).encode() for known, body in BODIES if known == path]
        return pack_bytes([path, mutate_json(dice, bodies)])

    def run(self, data: bytes) -> bool:
        path, body = unpack_bytes(data)
        try:
            self._read(path, body)
        except MillraceError as error:
            check_error(error)
            return False
        return True

    def _read(self, path: bytes, body: bytes) -> None:
        """Raises the refusal, or Finding."""
        if path == CURSOR:
            return _check_cursor(body.decode("latin-1"))
        fields = parse_object(body)
        if path == EMBED:
            request, encoding = read_embeddings(fields)
            raise_any(check_embed(request))
            must(encoding in ("float", "base64"), encoding)
            valid = valid_typed("embed", request, JobOptions(), BOUNDS)
            must(1 <= valid.cost <= 1_024 and valid.model, f"a cost of {valid.cost}")
            return None
        wanted = self._readers[path](fields)
        must(1 <= len(wanted.requests) <= MOST_PROMPTS, f"{len(wanted.requests)} prompts")
        for generation in wanted.requests:
            _check(generation, wanted)
        _check_said(json.loads(body), wanted)


def check_error(error: MillraceError) -> None:
    """It is one that the caller brings about, and can be sent: as a status, and as an object that JSON holds."""
    must(isinstance(error, InvalidRequest) and error.code is Code.INVALID_ARGUMENT, f"{error!r}")
    refusal = to_refusal(error)
    told = json.loads(refusal.body)["error"]
    must(refusal.status == 400 and told["message"] and told["code"], f"an error {told}")
    must(len(refusal.body) <= MOST_BODY, f"an error of {len(refusal.body)} bytes")
    headers = "".join(f"{name}{value}" for name, value in refusal.headers.items())
    must(headers.isascii() and headers.isprintable() and len(headers) <= MOST_HEADER, f"headers {headers!r}")


def _check(asked: GenerateRequest, wanted: Wanted) -> None:
    raise_any(check_generate(asked))
    valid: ValidRequest = valid_generate(asked, JobOptions(), BOUNDS)
    contracts.check_generation(valid, GenerateRequest.FromString(valid.payload))
    must(wanted.completions == valid.completions, f"{wanted.completions} completions")
    must(len(wanted.requests) == 1 or not wanted.stream, "a stream of several prompts")
    for entry in TEXT_ENTRIES:
        must(accepts(valid, entry) is not None, f"a generation is refused by {entry.name}")


def _check_said(body: Mapping[str, Any], wanted: Wanted) -> None:
    """What JSON says of numbers is what is run."""
    sampling, stopping = wanted.requests[0].sampling, wanted.requests[0].stopping
    for name, value in _numbers(body):
        ran = getattr(sampling, name)
        must(abs(ran - value) <= 1e-6 * max(abs(value), 1), f"{name} became {ran}")
    must(wanted.completions == (body.get("n") or 1), f"{wanted.completions} completions")
    stop = body.get("stop") or []
    must(list(stopping.stop_strings) == ([stop] if isinstance(stop, str) else stop), "other stop strings")
    most = body.get("max_completion_tokens")
    most = body.get("max_tokens") if most is None else most
    must(most is None or stopping.max_tokens == (most or 1), f"max_tokens became {stopping.max_tokens}")


def _numbers(body: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name in ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"):
        if body.get(name) is not None:
            yield name, body[name]


def _check_cursor(text: str) -> None:
    cursor = Cursor.parse(text)
    must(contracts.ID.match(cursor.job_id) and 0 <= cursor.offset < 2**64, f"a cursor {cursor}")
    must(len(cursor.history) == 8 and len(cursor.lengths) <= MOST_PROMPTS, f"a cursor {cursor}")
    again = Cursor.parse(str(cursor))
    must(again == cursor, f"a cursor {cursor} that is read as {again}")
