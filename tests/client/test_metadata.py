"""What goes with each call besides the request."""

import subprocess
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from millrace.client.metadata import Metadata, current_traceparent


def test_the_current_span_goes_with_the_calls_that_are_made_in_it() -> None:
    metadata = Metadata(tenant="acme")
    assert list(metadata) == [("millrace-tenant", "acme")]
    with TracerProvider(shutdown_on_exit=False).get_tracer("program").start_as_current_span("work") as span:
        ids = span.get_span_context()
        traceparent = f"00-{trace.format_trace_id(ids.trace_id)}-{trace.format_span_id(ids.span_id)}-01"
        assert tuple(metadata) == (("millrace-tenant", "acme"), ("traceparent", traceparent))
        assert (len(metadata), metadata[1][1]) == (2, traceparent)
    assert len(metadata) == 1


def test_a_program_that_is_not_traced_loads_nothing_for_it() -> None:
    assert current_traceparent() == ""
    code = "import sys, millrace.client.client; print(any('opentelemetry' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
