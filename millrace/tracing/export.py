"""Recorded spans on their way to a collector: the one module that loads OpenTelemetry's SDK, where traces are made.

Spans wait in a bounded queue and leave on a thread of their own: a collector that is away, or slow, costs a request
nothing, and the oldest spans are dropped.
"""

import logging
import threading
from collections.abc import Sequence
from importlib.metadata import version
from urllib.parse import urlsplit

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from millrace.tracing.context import Context
from millrace.tracing.span import Attributes, Kind, Span

WAITING_SPANS = 8_192
PAUSE_MS = 1_000
"""How long spans wait for others to go with."""
EXPORT_S = 2.0
"""For one batch, its repetitions included; then it is lost."""
FLUSH_S = 3.0
log = structlog.get_logger()


class Tracer:
    """Of one process: its service's name, and which of its instances it is. Raises ValueError for an endpoint that is
    not one."""

    def __init__(self, service: str, instance_id: str, endpoint: str) -> None:
        insecure = check_endpoint(endpoint) == "http"
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # Telling says it, once.
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=insecure, timeout=EXPORT_S)
        self._spans = BatchSpanProcessor(Telling(exporter, endpoint), WAITING_SPANS, PAUSE_MS)
        about = {"service.name": service, "service.instance.id": instance_id, "service.version": version("millrace")}
        provider = TracerProvider(ALWAYS_ON, Resource.create(about), shutdown_on_exit=False)
        provider.add_span_processor(self._spans)
        self._tracer = provider.get_tracer("millrace")

    def start(
        self, name: str, kind: Kind, parent: Context | None, attributes: Attributes | None, at_ns: int | None
    ) -> Span:
        """One that is recorded. `at_ns`: when it began, in nanoseconds since 1970; None: now."""
        around = trace.set_span_in_context(trace.NonRecordingSpan(to_otel(parent))) if parent else None
        recorded = self._tracer.start_span(name, around, trace.SpanKind[kind], attributes, start_time=at_ns)
        ids = recorded.get_span_context()
        context = Context(trace.format_trace_id(ids.trace_id), trace.format_span_id(ids.span_id), sampled=True)
        return RecordedSpan(context, recorded)

    def close(self) -> None:
        """Sends what waits, within `FLUSH_S`."""
        closing = threading.Thread(target=self._spans.shutdown, daemon=True)
        closing.start()
        closing.join(FLUSH_S)


class RecordedSpan(Span):
    """One that goes to the collector."""

    __slots__ = ("_recorded",)
    is_recorded = True

    def __init__(self, context: Context, recorded: trace.Span) -> None:
        super().__init__(context)
        self._recorded = recorded

    def note(self, attributes: Attributes) -> None:
        self._recorded.set_attributes(attributes)

    def happened(self, event: str, attributes: Attributes | None = None, *, at_ns: int | None = None) -> None:
        self._recorded.add_event(event, attributes, at_ns)

    def link(self, other: Context) -> None:
        self._recorded.add_link(to_otel(other))

    def fail(self, reason: str) -> None:
        self._recorded.set_status(trace.Status(trace.StatusCode.ERROR, reason))
        self._recorded.set_attribute("error.type", reason)

    def end(self, at_ns: int | None = None) -> None:
        self._recorded.end(at_ns)


class Telling(SpanExporter):
    """Says once that the collector is away, and once that it is back."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter, self._endpoint = exporter, endpoint
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away != self._away:
            self._away = away
            log.warning("traces.away" if away else "traces.back", endpoint=self._endpoint)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def check_endpoint(endpoint: str) -> str:
    """Answers its scheme. Raises ValueError."""
    parts = urlsplit(endpoint)
    wrong = parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.port is None
    if wrong or parts.path not in ("", "/") or parts.query:
        raise ValueError("traces cannot be sent there: the endpoint must be http://HOST:PORT or https://HOST:PORT")
    return parts.scheme


def to_otel(context: Context) -> trace.SpanContext:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if context.sampled else trace.TraceFlags.DEFAULT)
    return trace.SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote=True, trace_flags=flags)
