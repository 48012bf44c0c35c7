"""The frontend's two ports as a client sees them that speaks neither gRPC nor HTTP, or nearly."""

import random
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.target import fail
from tests.fuzz.wire import DEADLINE_S, OverTheWire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAMES = tuple(
    len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    for kind, flags, stream, body in (
        (4, 0, 0, b""),
        (4, 0, 0, b"\0\3\xff\xff\xff\xff\0\4\x7f\xff\xff\xff"),
        (4, 1, 0, b""),
        (1, 4, 1, b"\x83\x86\x84\x41\x01a\x5f\x10application/grpc"),
        (0, 1, 1, b"\0\0\0\0\0"),
        (0, 0, 1, b"\1\xff\xff\xff\xff"),
        (3, 0, 1, b"\0\0\0\x08"),
        (6, 0, 0, b"12345678"),
        (8, 0, 0, b"\x7f\xff\xff\xff"),
        (9, 4, 1, b"\xff" * 32),
        (7, 0, 0, b"\0\0\0\0\0\0\0\0"),
    )
)
HTTP = (
    b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /readyz?%00 HTTP/1.0\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nx",
    b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
)
ANSWER_S = 0.05


class Sockets(OverTheWire):
    """An input is what is sent to one of the frontend's two ports, where gRPC and plain HTTP are spoken."""

    name, share = "sockets", 400

    @cached_property
    def known(self) -> Sequence[bytes]:
        return [b"g" + PREFACE + b"".join(FRAMES), b"g" + PREFACE[:9], *(b"h" + one for one in HTTP), b"h"]

    def mutant(self, dice: random.Random) -> bytes:
        if dice.random() < 0.4:
            return b"h" + mutate_bytes(dice, dice.choice(HTTP), dice.choice(HTTP))
        frames = PREFACE + b"".join(dice.choices(FRAMES, k=dice.randint(1, 12)))
        for _ in range(dice.randint(0, 3)):
            frames = mutate_bytes(dice, frames, frames)
        return b"g" + frames

    def send(self, data: bytes) -> bool:
        """Whether anything was answered; the connection may be closed at any moment."""
        address = self.frontend.ready["grpc" if data[:1] == b"g" else "http"]
        host, _, port = address.rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
            connection.sendall(data[1:])
            connection.settimeout(ANSWER_S)
            return bool(connection.recv(1 << 16))
        return False

    def finish(self) -> None:
        super().finish()
        for path in ("metrics", "healthz", "readyz"):
            host, _, port = self.frontend.ready["http"].rpartition(":")
            with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
                connection.sendall(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
                if not connection.recv(64).startswith(b"HTTP/1.1 200"):
                    fail(f"/{path} is not answered")
