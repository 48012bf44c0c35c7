"""A stretch of a request's time."""

from typing import TYPE_CHECKING, Literal, TypeAlias

from millrace.tracing.context import Context

if TYPE_CHECKING:
    from opentelemetry.trace import Span as Recorded

Attributes: TypeAlias = dict[str, str | int | float | bool]
Kind = Literal["INTERNAL", "SERVER", "PRODUCER", "CONSUMER"]


class Span:
    """One that is not recorded takes whatever it is told, and only knows the caller's context, to hand it on."""

    __slots__ = ("_recorded", "context")

    def __init__(self, context: Context | None = None, recorded: "Recorded | None" = None) -> None:
        self.context, self._recorded = context, recorded

    @property
    def is_recorded(self) -> bool:
        return self._recorded is not None

    @property
    def traceparent(self) -> str:
        """Empty where there is no trace."""
        return str(self.context) if self.context is not None else ""

    @property
    def trace_id(self) -> str:
        """Empty where there is no trace."""
        return self.context.trace_id if self.context is not None else ""

    def note(self, attributes: Attributes) -> None:
        if self._recorded is not None:
            self._recorded.set_attributes(attributes)

    def happened(self, event: str, attributes: Attributes | None = None, *, at_ns: int | None = None) -> None:
        """`at_ns` is nanoseconds since 1970; now, where it is not given."""
        if self._recorded is not None:
            self._recorded.add_event(event, attributes, at_ns)

    def link(self, other: Context) -> None:
        """Says that another trace is about the same."""
        if self._recorded is not None:
            from millrace.tracing.export import to_otel

            self._recorded.add_link(to_otel(other))

    def fail(self, reason: str) -> None:
        if self._recorded is not None:
            from opentelemetry.trace import Status, StatusCode

            self._recorded.set_status(Status(StatusCode.ERROR, reason))
            self._recorded.set_attribute("error.type", reason)

    def end(self, at_ns: int | None = None) -> None:
        if self._recorded is not None:
            self._recorded.end(at_ns)


UNTRACED = Span()
