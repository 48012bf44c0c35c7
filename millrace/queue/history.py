"""The running hash by which a client and the log agree on all results so far, in 8 bytes.

history(0) = 8 zero bytes; history(n) = BLAKE2b-64(history(n-1) ‖ body(n)), where body(n) is the serialised response
without its own history field. In a message it is the little-endian fixed64 of these bytes, so an encoded field ends in
them as they are.
"""

import hashlib

EMPTY = bytes(8)
FIELD_BYTES = 1 + len(EMPTY)
"""The encoded field, which is the last of a serialised response."""


def extend(history: bytes, body: bytes) -> bytes:
    """The history behind one more result."""
    return hashlib.blake2b(history + body, digest_size=8).digest()


def to_field(history: bytes) -> int:
    """As the value of a fixed64 field."""
    return int.from_bytes(history, "little")
