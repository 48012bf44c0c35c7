"""A collector of traces, as OTLP over gRPC has it: it takes every span that is exported to it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.eventually import eventually


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A span; times are nanoseconds since 1970."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    begin: int
    end: int
    failed: bool
    attributes: dict[str, Any]
    events: list[str]
    links: list[str]
    """The trace ids of what it is linked to."""


@dataclass
class Collector(TraceServiceServicer):
    endpoint: str = ""
    spans: list[Seen] = field(default_factory=list)
    exports: int = 0

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:
        self.exports += 1
        for resource in request.resource_spans:
            service = _plain(resource.resource.attributes)["service.name"]
            self.spans += [_seen(service, span) for scope in resource.scope_spans for span in scope.spans]
        return ExportTraceServiceResponse()

    def named(self, name: str) -> list[Seen]:
        """In the order in which they began."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.begin)

    def one(self, name: str) -> Seen:
        (span,) = self.named(name)
        return span

    def children(self, parent: Seen) -> list[str]:
        """The names of those below a span, in the order in which they began."""
        below = [span for span in self.spans if span.parent_id == parent.span_id]
        return [span.name for span in sorted(below, key=lambda span: span.begin)]

    async def until(self, *names: str, within_s: float = 10.0) -> None:
        """Returns when there is a span of each name."""
        await eventually(lambda: set(names) <= {span.name for span in self.spans}, within_s)


def _seen(service: str, span: Span) -> Seen:
    return Seen(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        begin=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        attributes=_plain(span.attributes),
        events=[event.name for event in span.events],
        links=[link.trace_id.hex() for link in span.links],
    )


def _plain(attributes: "Iterator[KeyValue] | Any") -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


@contextmanager
def collector(address: str = "127.0.0.1:0") -> Iterator[Collector]:
    """On threads of its own, so that it answers while the test's loop is held up."""
    server, collected = grpc.server(ThreadPoolExecutor(2)), Collector()
    add_TraceServiceServicer_to_server(collected, server)  # type: ignore[no-untyped-call]
    collected.endpoint = f"http://127.0.0.1:{server.add_insecure_port(address)}"
    server.start()
    try:
        yield collected
    finally:
        server.stop(None).wait()
