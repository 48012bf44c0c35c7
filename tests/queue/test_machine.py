"""The queue against the oracle, on every server. `HYPOTHESIS_PROFILE=long` looks for longer."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.queue.clock import clocked_scripts
from tests.queue.machine import QueueMachine
from tests.queue.rig import Rig
from tests.queue.servers import SERVERS

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES = {"valkey": 150, "redis": 50, "cluster": 50}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    name: str = request.param
    with SERVERS[name]() as url:
        yield name, url


@pytest.mark.timeout(7_200 if LONG else 600)  # shrinking takes its time
def test_the_queue_does_what_the_oracle_foresees(server: tuple[str, str]) -> None:
    name, url = server
    with clocked_scripts():
        rig = Rig(url)
        machine = type("Machine", (QueueMachine,), {"rig": rig})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=EXAMPLES[name] * (50 if LONG else 1),
                    stateful_step_count=60 if LONG else 30,
                    deadline=None,
                    print_blob=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            rig.close()
