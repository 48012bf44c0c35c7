"""Where in a trace something belongs, as W3C Trace Context writes it (https://www.w3.org/TR/trace-context/).

What a caller sends is taken only where it is exactly right; anything else is as if nothing had come.
"""

import re
from dataclasses import dataclass
from typing import Self

KEY = "traceparent"
"""Of gRPC's metadata, and of HTTP's headers."""
CHARACTERS = 55
"""Of version 00, and the start of any later one."""
_FIELDS = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class Context:
    """A span: hexadecimal ids of 32 and 16 characters, and whether its trace is recorded."""

    trace_id: str
    span_id: str
    sampled: bool

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """None where it is not a traceparent. A later version may have more behind the fields that are known."""
        if not isinstance(text, str) or (found := _FIELDS.match(text)) is None:
            return None
        version, trace_id, span_id, flags = found.groups()
        rest = text[CHARACTERS:]
        if rest and (version == "00" or not rest.startswith("-")):
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def trace_id(traceparent: str) -> str:
    """Empty where there is none."""
    context = Context.parse(traceparent) if traceparent else None
    return context.trace_id if context is not None else ""
