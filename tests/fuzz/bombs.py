"""Requests that are small on the wire and large behind it, or that hold very many small things to look at."""

from collections.abc import Callable, Sequence

from tests.fuzz.mutate import BYTES, varint

Bomb = Callable[[int], bytes]
"""A request of about so many bytes."""


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(body)) + body


def many(most: int, *fields: bytes) -> bytes:
    """The fields again and again, in turn."""
    one = b"".join(fields)
    return one * (most // len(one))


def numbered(most: int, wrap: Callable[[bytes], bytes], start: bytes = b"") -> bytes:
    """Fields that differ, so that none replaces another."""
    size = len(wrap(start + b"%08x" % 0))
    return b"".join(wrap(start + b"%08x" % number) for number in range(most // size))


def bias(token: int, value: bytes) -> bytes:
    return field(10, b"\x08" + varint(token) + b"\x15" + value)


def shaped(*sizes: int) -> bytes:
    """A tensor without elements, whose shape says these sizes."""
    return field(5, field(1, b"x") + field(2, b"FP32") + field(3, b"".join(map(varint, sizes)))) + field(7, b"")


MODEL, TEXT = field(1, b"tested"), field(3, b"x")
NAMED = field(1, b"x") + field(2, b"BYTES") + field(3, varint(2**16))
ONE, NAN = b"\0\0\x80\x3f", b"\0\0\xc0\x7f"
GENERATIONS: Sequence[Bomb] = (
    lambda most: MODEL + field(5, many(most, field(1, b""))),
    lambda most: MODEL + field(5, many(most, field(1, field(1, b"u")))),
    lambda most: MODEL + TEXT + field(6, b"".join(bias(token, ONE) for token in range(most // 12))),
    lambda most: MODEL + TEXT + field(6, b"".join(bias(token, NAN) for token in range(most // 12))),
    lambda most: MODEL + TEXT + field(7, many(most, field(3, b""))),
    lambda most: MODEL + TEXT + field(7, field(4, b"\1" * most)),
    lambda most: MODEL + TEXT + field(8, field(4, many(most, field(1, b"")))),
    lambda most: MODEL + TEXT + many(most, field(99, b"")),
    lambda most: MODEL + field(4, field(1, b"\1" * most)),
    lambda most: MODEL + field(3, b"x" * most),
    lambda most: field(1, b"m" * most) + TEXT,
)
"""Turns without a role and with one, biases, stop strings, stop tokens, choices, unknown fields, tokens, text, name."""
INFERS: Sequence[Bomb] = (
    lambda most: MODEL + many(most, field(5, b"")),
    lambda most: MODEL + many(most, field(6, b"")),
    lambda most: MODEL + many(most, field(7, b"")),
    lambda most: MODEL + many(most, field(4, b""), field(5, b""), field(6, b"")),
    lambda most: MODEL + field(5, NAMED + field(5, many(most, field(8, b"")))),
    lambda most: MODEL + field(5, NAMED + field(3, b"\1" * most)),
    lambda most: MODEL + numbered(most // 32, lambda name: field(4, field(1, name))),
    lambda most: MODEL + field(5, NAMED + numbered(most // 32, lambda name: field(4, field(1, name)))),
    lambda most: MODEL + numbered(most // 64, lambda name: field(4, field(1, name)), b"millrace_"),
    lambda most: MODEL + numbered(most // 64, lambda name: field(6, field(1, name))),
    lambda most: MODEL + field(6, field(1, b"n" * most)),
    lambda most: MODEL + field(5, field(1, b"x") + field(2, b"T" * most)),
    lambda _: MODEL + shaped(2**31 - 1, 0, 1),
    lambda _: MODEL + shaped(2**31 - 1, 2**31 - 1, 0),
    lambda _: MODEL + shaped(0, 0, 2**63 - 1),
)
"""Inputs, outputs, contents, all three, texts, sizes, parameters of either kind, names, and tensors of nothing."""
