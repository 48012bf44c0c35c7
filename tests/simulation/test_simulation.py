"""The queue keeps its promises in some hundred schedules; each is the same at every replay; planted faults show."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.queue.clock import clocked_scripts
from tests.queue.faults import FAULTS
from tests.simulation.promise import Broken
from tests.simulation.rig import Rig
from tests.simulation.store import LocalValkey, Store
from tests.simulation.weather import ACCIDENTS

SCHEDULES, MOST = 150, 600
REPLAYED = "0:39"
SEEN = (
    *(f"accident: {kind}" for kind in (*ACCIDENTS, "a job kills its worker", "a lost lease is used on")),
    *(f"network: {fate}" for fate in ("reply lost", "request lost", "held up", "timed out", "mail lost", "mail late")),
    *(f"submit: {answer}" for answer in ("queued", "exists")),
    *(f"take: {answer}" for answer in ("leases", "nothing", "repeated", "hold", "with a strike", "one gave way")),
    *(f"emit: {verdict}" for verdict in ("ok", "duplicate", "lost", "gap", "unwanted")),
    *(f"renew: {verdict}" for verdict in ("ok", "lost", "unwanted")),
    *(f"release: {verdict}" for verdict in ("ok", "lost")),
    *(f"ending: {reason}" for reason in ("OK", "BROKEN", "CANCELLED", "ABANDONED", "DEADLINE_EXCEEDED", "POISON_JOB")),
    "life: a lease lapsed",
    "reap: amnesty",
    "caller: ALREADY_EXISTS JOB_ID_REUSED",
    "caller: connection broke",
    "caller: left",
)
"""What happens in a few hundred schedules, or they show little."""
FOUND = {
    "emit does not ask whose lease it is": "I3",
    "emit does not know what it has written": "I2",
    "emit leaves gaps": "I2",
    "emit does not renew the lease": "I4",
    "a result does not clear the strikes": "I4",
    "emit writes for nobody": "I5",
    "a result is not told": "mailbox",
    "take does not remember its answer": "I4",
    "take gives a struck job to a busy worker": "I4",
    "release does not ask whose lease it is": "I4",
    "renew revives a lost lease": "I4",
    "reap knows no amnesty": "I4",
    "nobody waits for reap to notice": "I1 mailbox",
    "a lapse is never a strike": "I4",
    "every lapse is a strike": "I4",
    "poison has four tries": "I4",
    "no deadline holds": "I1 I5",
    "a watched job is watched for ever": "I5",
    "an ended job's results stay": "I2 I9",
    "an ended job's payload stays": "I9",
    "a job is accepted without a lifetime": "I9",
    "a name goes to the second request": "I7",
    "a running job is forgotten": "I1",
}
"""Planted fault → the promises that it may break first, by seed."""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalValkey]:
    with LocalValkey() as server:
        yield server


@pytest.fixture
def store(server: LocalValkey) -> Iterator[Store]:
    with Store(server.path) as store:
        yield store


def test_every_promise_holds_and_everything_happens_in_some_hundred_schedules(store: Store) -> None:
    with clocked_scripts():
        rig = Rig(store)
        for index in range(SCHEDULES):
            ran = rig.run(f"0:{index}")
            assert ran.error is None, f"python -m tests.simulation --replay {ran.seed}: {ran.error}"
    assert [what for what in SEEN if not rig.counts[what]] == []


def test_a_schedule_is_the_same_at_every_replay_and_in_every_process(store: Store) -> None:
    with clocked_scripts():
        rig = Rig(store)
        first, _, again = (rig.run(seed, trace=True) for seed in (REPLAYED, "0:1", REPLAYED))
    assert first == again
    assert len(first.trace) > 50
    told = [_replay(REPLAYED, hash_seed=hash_seed) for hash_seed in ("1", "2")]
    assert told == ["\n".join([*first.trace, "", f"{REPLAYED}: every promise held", ""])] * 2


def _replay(seed: str, *, hash_seed: str) -> str:
    """What the command prints, where sets and dictionaries of strings are ordered otherwise."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--replay", seed],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("name", FOUND)
def test_a_planted_fault_is_found(name: str, store: Store) -> None:
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    with clocked_scripts({fault.script: [(fault.old, fault.new)]}):
        rig = Rig(store)
        ran = next(ran for index in range(MOST) if (ran := rig.run(f"17:{index}")).error is not None)
        again = rig.run(ran.seed)
    assert isinstance(ran.error, Broken)
    assert ran.error.promise in FOUND[name].split()
    assert isinstance(again.error, Broken)
    assert again.error.promise == ran.error.promise
