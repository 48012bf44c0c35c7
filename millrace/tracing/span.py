"""A stretch of a request's time."""

from typing import Literal, TypeAlias

from millrace.tracing.context import Context

Attributes: TypeAlias = dict[str, str | int | float | bool]
Kind = Literal["INTERNAL", "SERVER", "PRODUCER", "CONSUMER"]


class Span:
    """One that is not recorded: it takes whatever it is told, and only knows the caller's context, to hand it on."""

    __slots__ = ("context",)
    is_recorded = False

    def __init__(self, context: Context | None = None) -> None:
        self.context = context

    @property
    def traceparent(self) -> str:
        """Empty where there is no trace."""
        return str(self.context) if self.context is not None else ""

    @property
    def trace_id(self) -> str:
        """Empty where there is no trace."""
        return self.context.trace_id if self.context is not None else ""

    def note(self, attributes: Attributes) -> None:
        """Says more of it."""

    def happened(self, event: str, attributes: Attributes | None = None, *, at_ns: int | None = None) -> None:
        """`at_ns` is nanoseconds since 1970; now, where it is not given."""

    def link(self, other: Context) -> None:
        """Says that another trace is about the same."""

    def fail(self, reason: str) -> None:
        """Says that it went wrong."""

    def end(self, at_ns: int | None = None) -> None:
        """Now, where no time is given."""


UNTRACED = Span()
