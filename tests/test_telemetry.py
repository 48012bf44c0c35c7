"""Log lines: for machines each one is a JSON object, whoever says it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from millrace import tracing
from tests.processes import Service, Valkey, free_port
from tests.stub_models import write_stub


def said(program: str, log_format: str = "json") -> list[str]:
    """What a process that logs, and then runs `program`, writes to standard error."""
    begin = f"""
        import logging, warnings
        import structlog
        from millrace.telemetry import configure_logging
        configure_logging({log_format!r}, "info")
        log = structlog.get_logger()
    """
    code = textwrap.dedent(begin) + textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.splitlines()


def test_events_libraries_warnings_and_what_ends_the_process_are_one_json_object_each() -> None:
    lines = said("""
        log.info("job.ended", job_id="a\\nb")
        logging.getLogger("some.library").warning("%s\\nis odd", "this")
        warnings.warn("be careful")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("call.failed")
            logging.getLogger("another").exception("so did I")
        raise KeyError("the end")
    """)
    events = [json.loads(line) for line in lines]
    assert [event["level"] for event in events] == ["info", "warning", "warning", "error", "error", "error"]
    assert all({"event", "timestamp"} <= event.keys() for event in events)
    assert events[0]["job_id"] == "a\nb"
    assert events[1]["logger"] == "some.library"
    assert "ZeroDivisionError" in events[3]["exception"]
    assert "ZeroDivisionError" in events[4]["exception"]
    assert "KeyError" in events[5]["error"]


def test_people_read_lines_without_braces() -> None:
    (line,) = said('log.info("job.ended", job_id="a")', "console")
    assert "job.ended" in line
    assert "job_id=a" in line


@pytest.mark.parametrize("module", ["services.frontend", "services.worker"])
def test_every_line_of_a_service_is_a_json_object_through_an_outage_and_its_end(module: str, tmp_path: Path) -> None:
    write_stub(tmp_path)
    settings = {
        "MILLRACE_LOG_FORMAT": "json",
        "MILLRACE_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "MILLRACE_GRPC_ADDRESS": "127.0.0.1:0",
        "MILLRACE_HTTP_ADDRESS": "127.0.0.1:0",
        "MILLRACE_MODELS": str(tmp_path),
        "MILLRACE_DRAIN_S": "0",
    }
    with Valkey() as valkey, Service(module, settings | {"MILLRACE_REDIS_URL": valkey.url}) as service:
        valkey.kill()
        assert service.stop() == 0
        lines = (service.folder / "stderr").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events[0].endswith(".starting")
    assert len(events) > 1


def test_a_service_that_sends_no_traces_loads_nothing_that_makes_them() -> None:
    """Redis' client loads what counts."""
    code = "import sys, services.frontend.server, services.worker.worker; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))] == []


@pytest.mark.parametrize(
    "endpoint", ["localhost:4317", "unix:/run/otel", "http://", "http://collector", "http://a:b@collector:4317"]
)
def test_an_endpoint_that_is_none_is_refused_with_a_sentence(endpoint: str) -> None:
    with pytest.raises(ValueError, match="the endpoint must be"), tracing.sending("frontend", "f1", endpoint, 1.0):
        pass
