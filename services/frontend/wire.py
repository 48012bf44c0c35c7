"""The little of protobuf's encoding that is written by hand: results need not be parsed to be sent on, and requests are
looked at before they are parsed."""

from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

HARMLESS_BYTES = 64 << 10
"""A message of at most so many cannot swell far."""
MOST_FIELDS = 1 << 17
"""Parsed, a field takes up to 90 bytes however short it is, and 0.5 µs."""
MOST_PACKED_BYTES = 16 << 20
"""Of packed varints, which take up to 8 bytes each."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}
FIXED_TYPES = frozenset(
    {
        FieldDescriptor.TYPE_DOUBLE,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_FLOAT,
        FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_SFIXED32,
        FieldDescriptor.TYPE_BOOL,
    }
)
"""Of numbers that take as many bytes parsed as packed."""


def varint(value: int) -> bytes:
    """A length or a number of 0 or more, as protobuf writes it."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def is_swollen(raw: bytes, descriptor: Descriptor) -> bool:
    """Whether a message would take far more memory and time than its bytes: it, with all messages within it, has more
    than `MOST_FIELDS` fields or `MOST_PACKED_BYTES` of packed numbers. What is no message is read as far as it goes."""
    if len(raw) <= HARMLESS_BYTES:
        return False
    fields = packed_bytes = 0
    spans = [(0, len(raw), descriptor)]
    while spans:
        at, end, kind = spans.pop()
        messages, packed = _inner(kind)
        while at < end:
            tag, at = _varint(raw, at)
            number, wire_type = tag >> 3, tag & 7
            fields += 1
            if fields > MOST_FIELDS or packed_bytes > MOST_PACKED_BYTES:
                return True
            if wire_type == VARINT:
                _, at = _varint(raw, at)
            elif wire_type == BYTES:
                size, at = _varint(raw, at)
                if number in messages:
                    spans.append((at, min(at + size, end), messages[number]))
                elif number in packed:
                    packed_bytes += min(size, end - at)
                at += size
            else:
                at += SIZES.get(wire_type, 0)
    return packed_bytes > MOST_PACKED_BYTES


@cache
def _inner(descriptor: Descriptor) -> tuple[dict[int, Descriptor], frozenset[int]]:
    """By number: the fields that hold messages, and those that may hold packed varints."""
    messages = {field.number: field.message_type for field in descriptor.fields if field.message_type is not None}
    packed = (field.number for field in descriptor.fields if field.is_packed and field.type not in FIXED_TYPES)
    return messages, frozenset(packed)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number, and where it ends; one that the bytes break off ends behind them."""
    value = shift = 0
    for place in range(at, min(at + 10, len(raw))):
        byte = raw[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    return value, len(raw)
