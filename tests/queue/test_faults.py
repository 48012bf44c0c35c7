"""The machine finds every planted fault: the checker sees."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from millrace.errors import Unavailable
from tests.queue.clock import clocked_scripts
from tests.queue.faults import FAULTS, Fault
from tests.queue.machine import QueueMachine
from tests.queue.rig import Rig

SETTINGS = settings(
    max_examples=1_500,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def rig(valkey: str) -> Iterator[Rig]:
    rig = Rig(valkey)
    yield rig
    rig.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_machine_finds(fault: Fault, rig: Rig) -> None:
    machine = type("Machine", (QueueMachine,), {"rig": rig})
    with clocked_scripts({fault.script: [(fault.old, fault.new)]}), pytest.raises((AssertionError, Unavailable)):
        run_state_machine_as_test(machine, settings=SETTINGS)
