"""The little of protobuf's encoding that is written by hand, so that results need not be parsed to be sent on."""


def varint(value: int) -> bytes:
    """A length or a number of 0 or more, as protobuf writes it."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
