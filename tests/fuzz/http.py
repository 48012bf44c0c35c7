"""OpenAI's API over the wire: real processes, and a client that says anything in HTTP."""

import http.client
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property

from millrace.tensors import pack_bytes, unpack_bytes
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.openai import BODIES, CHAT, CURSORS, EMBED, MOST_BODY, RAW, TEXT
from tests.fuzz.target import must
from tests.fuzz.texts import mutate_json
from tests.fuzz.wire import OverTheWire

STATUSES = frozenset({200, 204, 307, 400, 403, 404, 405, 409, 429, 499, 503, 504})
READ_BYTES = 1 << 20
PATIENCE_S = 4.0
JSON = {"content-type": "application/json"}
PATHS = (
    *("/v1/models", "/v1/models/tested", "/v1/models/tested/1", "/v1/models/..%2f..%00"),
    *("/v1", "/v1/x", "/v1//models"),
)
HEADERS = ("last-event-id", "millrace-job-id", "millrace-tenant", "x-request-id", "content-type", "origin", "accept")
VALUES = (
    *("", "a", "tenant-1", "a b", "~" * 70, "x" * 6_000, "ü", "{", "%00", "application/json; charset=utf-16", "*"),
    *(cursor.decode("latin-1").strip("\n") for cursor in CURSORS),
)
JOB = "fuzzed"
CURSORS_OF_JOB = tuple(
    f"{JOB}.{rest}"
    for rest in (
        *("OFFSET.HISTORY", "OFFSET.HISTORY.u", "OFFSET.HISTORY.ut", "OFFSET.HISTORY.d", "OFFSET.HISTORY.u.5-7"),
        *("0.0000000000000000", "0.HISTORY", "1.HISTORY", "OFFSET.ffffffffffffffff", "99.HISTORY", "1.HISTORY.ut.9"),
        *("18446744073709551615.HISTORY", "OFFSET.0000000000000000.u.999999999" + "-1" * 15),
    )
)
"""Of a job that there is; OFFSET and HISTORY stand for those of its last result."""
STREAM = {"model": "tested", "prompt": "hello", "max_tokens": 4, "stream": True}


class Http(OverTheWire):
    """An input is a method, a path, headers as JSON, and a body. Bodies that ask for a stream are read to its end."""

    name, share = "http", 1_500

    def open(self, stack: ExitStack) -> None:
        super().open(stack)
        self._address = self.frontend.ready["http"]
        answer = self._request("POST", TEXT.decode(), JSON | {"millrace-job-id": JOB}, json.dumps(STREAM).encode())
        ids = [line for line in answer[1].split(b"\n") if line.startswith(f"id: {JOB}.".encode())]
        self._offset, self._history = ids[-1].decode().split(".")[1:3]

    @cached_property
    def known(self) -> Sequence[bytes]:
        bodies = [(path, json.dumps(body).encode()) for path, body in BODIES]
        streams = [(path, json.dumps({**body, "stream": True}).encode()) for path, body in BODIES]
        raw = [(path, body) for path in (TEXT, CHAT, EMBED) for body in RAW]
        streamed = json.dumps(STREAM).encode()
        posts = [case("POST", path.decode(), JSON, body) for path, body in (*bodies, *streams, *raw)]
        gets = [case("GET", path, {}, b"") for path in (*PATHS, TEXT.decode())]
        cursors = [case("GET", TEXT.decode(), {"last-event-id": value}, b"") for value in VALUES]
        resumed = [case("POST", TEXT.decode(), {**JSON, "last-event-id": value}, streams[0][1]) for value in VALUES]
        own = [case("GET", TEXT.decode(), {"last-event-id": value}, b"") for value in CURSORS_OF_JOB]
        again = [case("POST", TEXT.decode(), {**JSON, "last-event-id": value}, streamed) for value in CURSORS_OF_JOB]
        return [*posts, *gets, *cursors, *resumed, *own, *again]

    def mutant(self, dice: random.Random) -> bytes:
        path = dice.choice((TEXT, TEXT, CHAT, CHAT, EMBED))
        bodies = [json.dumps(body).encode() for known, body in BODIES if known == path]
        body = mutate_json(dice, bodies) if dice.random() < 0.8 else mutate_bytes(dice, dice.choice(bodies))
        headers = JSON | {
            dice.choice(HEADERS): dice.choice((*VALUES, *CURSORS_OF_JOB)) for _ in range(dice.choice((0, 0, 1, 2)))
        }
        method = dice.choice(("POST",) * 12 + ("GET", "PUT", "HEAD", "OPTIONS", "x"))
        return case(method, path.decode() if dice.random() < 0.9 else dice.choice(PATHS), headers, body)

    def send(self, data: bytes) -> bool:
        """Whether it was answered with what was asked for."""
        method, path, headers, body = unpack_bytes(data)
        said = headers.decode().replace("OFFSET", self._offset).replace("HISTORY", self._history)
        try:
            status, _ = self._request(method.decode(), path.decode(), json.loads(said), body)
        except (ValueError, http.client.HTTPException, BrokenPipeError, ConnectionResetError, TimeoutError):
            return False  # the client's own refusal, one that was closed before all was sent, or a very long text
        return status == 200

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            content = answer.read(READ_BYTES)
        finally:
            connection.close()
        _check(method, answer, content)
        return answer.status, content


def _check(method: str, answer: http.client.HTTPResponse, content: bytes) -> None:
    must(answer.status in STATUSES, f"status {answer.status}: {content[:300]!r}")
    if method == "HEAD" or answer.status == 204:
        return
    if "event-stream" in (answer.getheader("content-type") or ""):
        events = content.decode().split("\n\n")
        must(events[-1] == "" and events[-2].endswith("data: [DONE]"), f"a stream ends with {events[-2:]}")
    elif "json" in (answer.getheader("content-type") or ""):
        told = json.loads(content)
        must(answer.status == 200 or told["error"]["message"], f"an error {told}")
        must(answer.status == 200 or len(content) <= MOST_BODY, f"an error of {len(content)} bytes")


def case(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    return pack_bytes([method.encode(), path.encode(), json.dumps(headers).encode(), body])
