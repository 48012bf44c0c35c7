"""The service's own view of a load test."""

import asyncio
import time

import pytest

from millrace.load.scenario import Scenario, make_scenario
from millrace.load.server import Sampling, metrics_addresses, read
from millrace.scrape import parse
from tests.eventually import eventually
from tests.processes import free_port

SAID = parse("""
millrace_queue_waiting_jobs{model="pycode/1"} 7
millrace_queue_waiting_jobs{model="pycode/2"} 2
millrace_queue_waiting_jobs{model="pycode-large/1"} 100
millrace_queue_running_jobs{model="pycode/1"} 4
millrace_queue_estimated_wait_seconds{model="pycode/1"} 0.5
millrace_queue_estimated_wait_seconds{model="pycode/2"} 0.25
millrace_queue_ready_workers{model="pycode/1"} 2
millrace_queue_ready_workers{model="pycode/2"} 2
millrace_model_runs_total{model="pycode/1"} 1000
millrace_model_run_rows_total{model="pycode/1"} 4000
""")


def scenario(**settings: object) -> Scenario:
    return make_scenario({"model": "pycode", "arrivals": {"poisson": 1}} | settings)


def test_a_model_is_the_sum_of_its_versions() -> None:
    sample = read(SAID, "pycode/", 1.5)
    assert (sample.at_s, sample.waiting_jobs, sample.running_jobs) == (1.5, 9, 4)
    assert (sample.estimated_wait_s, sample.ready_workers) == (0.5, 2)
    assert (sample.runs, sample.rows) == (1000, 4000)


def test_a_version_is_read_alone() -> None:
    assert read(SAID, "pycode/2", 0.0).waiting_jobs == 2


def test_metrics_are_at_the_port_after_that_of_grpc_unless_it_is_said_where() -> None:
    assert metrics_addresses(scenario(address="a:8001,[::1]:8003")) == ["a:8002", "[::1]:8004"]
    assert metrics_addresses(scenario(http="b:1,c:2")) == ["b:1", "c:2"]
    assert metrics_addresses(scenario(http="")) == []
    with pytest.raises(ValueError, match="'a' is not of the form HOST:PORT"):
        metrics_addresses(scenario(address="a"))


async def test_metrics_that_nobody_serves_are_missing_with_a_word_why() -> None:
    sampling = Sampling([f"127.0.0.1:{free_port()}"], "pycode", "")
    running = asyncio.create_task(sampling.run(time.monotonic()))
    assert "127.0.0.1" in await eventually(lambda: sampling.problem)
    running.cancel()
    assert sampling.samples == []
