"""What goes with each call besides the request."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

TENANT_KEY, AUTHORIZATION_KEY, TRACEPARENT_KEY = "millrace-tenant", "authorization", "traceparent"
Pair = tuple[str, str]
ApiKey = str | Callable[[], str]
"""An API key or a JWT; or what gives the one of now: it is asked for each call, in the client's event loop."""


class Metadata(Sequence[Pair]):
    """Whose call it is, where that is said, and where the program traces itself with OpenTelemetry, the context of its
    current span when the call is made (https://www.w3.org/TR/trace-context/). Loads nothing of OpenTelemetry."""

    def __init__(self, *, tenant: str | None = None, api_key: ApiKey | None = None) -> None:
        self._tenant, self._api_key = tenant, api_key

    def __iter__(self) -> Iterator[Pair]:
        if self._tenant is not None:
            yield TENANT_KEY, self._tenant
        if self._api_key is not None:
            secret = self._api_key if isinstance(self._api_key, str) else self._api_key()
            yield AUTHORIZATION_KEY, f"Bearer {secret.strip()}"
        if traceparent := current_traceparent():
            yield TRACEPARENT_KEY, traceparent

    def __len__(self) -> int:
        return len(tuple(iter(self)))

    @overload
    def __getitem__(self, at: int) -> Pair: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Pair]: ...
    def __getitem__(self, at: int | slice) -> Pair | Sequence[Pair]:
        return tuple(iter(self))[at]


def current_traceparent() -> str:
    """Of the span in which the program is; empty where there is none."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    flags = int(context.trace_flags) & 0x01
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
