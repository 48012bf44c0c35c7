"""Makes bad bytes of good ones: of any bytes, and of serialised protobuf messages by their structure.

A message is read as a tree without its schema: what parses as a message is taken for one. A mutant is mostly well
formed, so that it passes the decoder and reaches what stands behind it.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

VARINT, FIXED64, BYTES, START, END, FIXED32 = range(6)
INTEGERS = (0, 1, 2, 7, 127, 128, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
REALS = (0.0, -0.0, 1e-45, 1e-38, 1.0, 1.0000001, -1.0, 2.0, 3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    b"",
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    "naïve 数据 🙂".encode(),
    b"a" * 65,
    b"x" * 5_000,
    b"-1",
    b"%s%n",
)
NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 99, 2**29 - 1)
"""Of fields, some of which are known and some of which nobody knows."""
DEEPEST, MOST_FIELDS = 6, 4_096
LIES = (-1, 1, 2, 100, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


@dataclass(slots=True)
class Field:
    """A field of a message, as it is encoded."""

    number: int
    kind: int
    value: "int | bytes | list[Field]" = b""
    lie: int = 0
    """What is added to its length."""
    padding: int = 0
    """Bytes by which its varint is longer than it must be."""


@dataclass(slots=True)
class Cursor:
    data: bytes
    at: int = 0
    fields: list[Field] = field(default_factory=list)

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError

    def take(self, size: int) -> bytes:
        taken = self.data[self.at : self.at + size]
        if len(taken) != size:
            raise ValueError
        self.at += size
        return taken


def read(data: bytes, depth: int = DEEPEST) -> list[Field] | None:
    """The fields, or None where these bytes are no message."""
    cursor = Cursor(data)
    try:
        while cursor.at < len(data) and len(cursor.fields) < MOST_FIELDS:
            cursor.fields.append(_read_field(cursor, depth))
    except (ValueError, IndexError):
        return None
    return cursor.fields if cursor.at == len(data) else None


def _read_field(cursor: Cursor, depth: int) -> Field:
    number, kind = divmod(cursor.varint(), 8)
    if kind == VARINT:
        return Field(number, kind, cursor.varint())
    if kind in (FIXED64, FIXED32):
        return Field(number, kind, cursor.take(8 if kind == FIXED64 else 4))
    if kind != BYTES or not 0 < number < 100:
        raise ValueError
    body = cursor.take(cursor.varint())
    inner = read(body, depth - 1) if depth and body else None
    return Field(number, kind, body if inner is None else inner)


def write(fields: Sequence[Field]) -> bytes:
    return b"".join(map(_write_field, fields))


def _write_field(one: Field) -> bytes:
    tag = varint(one.number << 3 | one.kind)
    if isinstance(one.value, int):
        return tag + varint(one.value, one.padding)
    body = write(one.value) if isinstance(one.value, list) else one.value
    if one.kind != BYTES:
        return tag + body
    return tag + varint(max(len(body) + one.lie, 0), one.padding) + body


def varint(value: int, padding: int = 0) -> bytes:
    encoded = bytearray()
    value &= 2**64 - 1
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value | (0x80 if padding else 0))
    return bytes(encoded) + b"\x80" * (padding - 1) + b"\0" * bool(padding)


def nested(number: int, depth: int, body: bytes = b"") -> bytes:
    """A field within itself, so many times."""
    for _ in range(depth):
        body = varint(number << 3 | BYTES) + varint(len(body)) + body
    return body


def mutate_message(dice: random.Random, samples: Sequence[bytes]) -> bytes:
    """One to four changes to one of the samples, most of them to its structure."""
    data = dice.choice(samples)
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 4))):
        fields = read(data) if dice.random() < 0.8 else None
        if fields:
            _change(dice, fields, dice.choice(samples))
            data = write(fields)
        else:
            data = mutate_bytes(dice, data, dice.choice(samples))
    return data


def _change(dice: random.Random, fields: list[Field], other: bytes) -> None:
    """Walks down to somewhere, and changes a field there."""
    while True:
        at = dice.randrange(len(fields))
        inner = fields[at].value
        if not isinstance(inner, list) or not inner or dice.random() < 0.25:
            break
        fields = inner
    dice.choice(CHANGES)(dice, fields, at, other)


def _new_value(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    one = fields[at]
    if one.kind == VARINT:
        one.value = dice.choice((dice.choice(INTEGERS), dice.getrandbits(dice.randrange(1, 65))))
    elif one.kind == FIXED32:
        one.value = struct.pack("<f", dice.choice(REALS))
    elif one.kind == FIXED64:
        one.value = dice.choice((struct.pack("<d", dice.choice(REALS)), struct.pack("<Q", dice.choice(INTEGERS))))
    elif isinstance(one.value, bytes) and dice.random() < 0.5:
        one.value = mutate_bytes(dice, one.value, other)
    else:
        one.value = dice.choice(TEXTS)


def _duplicate(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    fields[at:at] = [fields[at]] * dice.choice((1, 1, 2, 20, 300))


def _remove(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    del fields[at]


def _reorder(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    dice.shuffle(fields)


def _renumber(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    fields[at].number = dice.choice(NUMBERS)


def _retype(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    kind = dice.choice((VARINT, FIXED64, BYTES, START, END, FIXED32, 6, 7))
    value = dice.choice(INTEGERS) if kind == VARINT else dice.randbytes({FIXED64: 8, FIXED32: 4}.get(kind, 0))
    fields[at] = Field(fields[at].number, kind, value)


def _lie(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    fields[at].lie = dice.choice(LIES)


def _pad(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    fields[at].padding = dice.choice((1, 3, 8, 12))


def _add_unknown(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    fields.insert(at, Field(dice.choice(NUMBERS), BYTES, dice.choice((*TEXTS, other))))


def _deepen(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    number = fields[at].number
    fields[at] = Field(number, BYTES, nested(number, dice.choice((1, 3, 50, 99, 100, 101, 1_000))))


def _graft(dice: random.Random, fields: list[Field], at: int, other: bytes) -> None:
    if branch := read(other):
        fields[at : at + dice.randrange(2)] = dice.sample(branch, dice.randint(1, len(branch)))


CHANGES: tuple[Callable[[random.Random, list[Field], int, bytes], None], ...] = (
    *(_new_value,) * 6,
    *(_duplicate, _remove, _reorder, _renumber, _retype, _lie, _pad, _add_unknown, _deepen, _graft),
)


def mutate_bytes(dice: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """One change that knows nothing of what the bytes mean."""
    at = dice.randrange(len(data) + 1)
    upto = min(len(data), at + dice.choice((1, 1, 2, 4, 8, 64)))
    change = dice.randrange(8)
    if change == 0 and data:
        at = min(at, len(data) - 1)
        return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
    if change == 1:
        return data[:at]
    if change == 2:
        return data[:at] + data[upto:]
    if change == 3:
        return data[:at] + dice.randbytes(upto - at) + data[upto:]
    if change == 4:
        return data[:at] + data[at:upto] * dice.choice((2, 3, 50)) + data[upto:]
    if change == 5:
        start = dice.randrange(len(other) + 1)
        return data[:at] + other[start : start + dice.choice((1, 8, 100, 10_000))] + data[upto:]
    if change == 6:
        return data[:at] + dice.choice((*TEXTS, b"\xff" * 10, b"\x80" * 12)) + data[upto:]
    word = dice.choice(INTEGERS) & 2**32 - 1
    return data[:at] + struct.pack(dice.choice("<>") + "I", word) + data[at + 4 :]
