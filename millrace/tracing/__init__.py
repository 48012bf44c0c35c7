"""Traces: where the time of one request went, over all processes that had to do with it.

    the call            frontend: an RPC, or an HTTP request; the caller's trace goes on in it
    ├─ submit           frontend: until the queue has the job; its context travels in the job
    │  ├─ queue         worker: from the submission to the first take
    │  └─ lease         worker: each time that one holds the job, until it has ended or is let go
    │     ├─ batch      until the first run that it is part of
    │     ├─ prefill    until the first result (generation), or
    │     ├─ decode     from there to the last
    │     └─ run        until the end (other tasks)
    └─ relay            frontend: from the results log to the caller

A trace that a caller began is recorded where the caller says so, any other for one of so many calls. A process that
sends no traces loads nothing of OpenTelemetry, and hands the caller's context on; there is one tracer in a process, as
there is one log.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import structlog

from millrace.errors import Code, MillraceError
from millrace.tracing.context import KEY, Context, trace_id
from millrace.tracing.span import UNTRACED, Attributes, Kind, Span

if TYPE_CHECKING:
    from millrace.tracing.export import Tracer

__all__ = [
    "CALLERS_FAULT",
    "KEY",
    "UNTRACED",
    "Attributes",
    "Context",
    "Span",
    "answered",
    "begin",
    "current",
    "sending",
    "serving",
    "trace_id",
    "within",
]

CALLERS_FAULT = frozenset(
    {
        Code.CANCELLED,
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNAUTHENTICATED,
    }
)
"""By the conventions for RPCs these are no errors of a server's span."""
_tracer: "Tracer | None" = None
_ratio = 0.0
_current: ContextVar[Span] = ContextVar("span", default=UNTRACED)


@contextmanager
def sending(service: str, instance_id: str, endpoint: str, ratio: float) -> Iterator[None]:
    """Meanwhile this process sends traces there; nothing where the endpoint is empty. Raises ValueError for one that is
    not an endpoint. At the end what waits is sent, in bounded time."""
    global _tracer, _ratio
    if not endpoint:
        yield
        return
    from millrace.tracing.export import Tracer

    _tracer, _ratio = Tracer(service, instance_id, endpoint), ratio
    try:
        yield
    finally:
        closing, _tracer = _tracer, None
        closing.close()


def current() -> Span:
    """The span that this task works for."""
    return _current.get()


def begin(
    name: str, kind: Kind, parent: Context | None, attributes: Attributes | None = None, *, at_ns: int | None = None
) -> Span:
    """A span below another, of whatever process. The caller ends it. `at_ns`: when it began, in nanoseconds since 1970;
    now, where it is not given."""
    if _tracer is None or not (parent.sampled if parent is not None else random.random() < _ratio):
        return Span(parent) if parent is not None else UNTRACED
    return _tracer.start(name, kind, parent, attributes, at_ns)


@contextmanager
def serving(name: str, traceparent: object, attributes: Attributes) -> Iterator[Span]:
    """A call of this process, which is the current span meanwhile; events have its trace's id. `traceparent` is what
    the caller sent."""
    span = begin(name, "SERVER", Context.parse(traceparent), attributes)
    if span.context is None:
        yield span
        return
    token = _current.set(span)
    try:
        with structlog.contextvars.bound_contextvars(trace_id=span.trace_id):
            yield span
    finally:
        _current.reset(token)
        span.end()


def answered(span: Span, code: Code, reason: str, attributes: Attributes) -> None:
    """How a call ended."""
    if not span.is_recorded:
        return
    span.note(attributes | {"millrace.code": code.name, "millrace.reason": reason})
    if code is not Code.OK and code not in CALLERS_FAULT:
        span.fail(reason or code.name)


@contextmanager
def within(name: str, kind: Kind = "INTERNAL") -> Iterator[Span]:
    """A part of the current span, which is the current one meanwhile. What it raises is noted in it."""
    outer = _current.get()
    if not outer.is_recorded:
        yield outer
        return
    span = begin(name, kind, outer.context)
    token = _current.set(span)
    try:
        yield span
    except MillraceError as error:
        span.note({"millrace.code": error.code.name, "millrace.reason": error.reason})
        if error.code not in CALLERS_FAULT:
            span.fail(error.reason)
        raise
    finally:
        _current.reset(token)
        span.end()
