"""Experiment 10: a tenant that sends ten times what another sends.

B asks for a little more than half of what the fleet can do, A for ten times that. B must be served its fair half. Once
with callers that would wait two seconds, so that refusals decide who gets in; once with jobs that wait, so that the
queue's order does. Then three tenants of weights 1, 2 and 4 all ask for more than there is, in both ways: with refusals
the shares are only told, since light tenants miss more of such deadlines when all that runs is of one length.
"""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.arrivals import Caller, Kind, Offered, caller
from tests.chaos.experiment import Outcome, Scale
from tests.stub_models import write_stub
from tests.survival.fleet import fleet

STEP_MS, SLOTS, TOKENS = 50, 24, 10
CAPACITY = SLOTS / (TOKENS * STEP_MS / 1000)
"""Calls a second."""
MEEK, FLOOD = 0.55, 10
HURRIED_S, PATIENT_S = 2.0, 60.0
WEIGHTS = {"one": 1, "two": 2, "four": 4}
BELOW = 0.10


async def run(scale: Scale) -> Outcome:
    weights = ",".join(f"{tenant}={weight}" for tenant, weight in WEIGHTS.items())
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=SLOTS, step_ms=STEP_MS)
        async with (
            fleet(Path(folder), frontends=1, workers=1, MILLRACE_TENANT_WEIGHTS=weights) as running,
            caller(running.addresses[0]) as calling,
        ):
            return await _try(calling, scale.of(6, 30), random.Random(scale.seed))


async def _try(calling: Caller, seconds: int, chance: random.Random) -> Outcome:
    await calling.offer({_kind("warm", HURRIED_S): 1.3 * CAPACITY}, 2.0, chance)
    return _judge(
        refused=await calling.offer(_flood(HURRIED_S), seconds, chance),
        weights_refused=await calling.offer(_weighted(HURRIED_S), 1.5 * seconds, chance),
        queued=await calling.offer(_flood(PATIENT_S), seconds, chance, cut=True),
        weights_queued=await calling.offer(_weighted(PATIENT_S), 1.5 * seconds, chance, cut=True),
    )


def _kind(tenant: str, timeout_s: float) -> Kind:
    return Kind(tokens=TOKENS, timeout_s=timeout_s, tenant=tenant)


def _flood(timeout_s: float) -> dict[Kind, float]:
    return {_kind("b", timeout_s): MEEK * CAPACITY, _kind("a", timeout_s): FLOOD * MEEK * CAPACITY}


def _weighted(timeout_s: float) -> dict[Kind, float]:
    return {_kind(tenant, timeout_s): 1.2 * CAPACITY for tenant in WEIGHTS}


def _judge(*, refused: Offered, weights_refused: Offered, queued: Offered, weights_queued: Offered) -> Outcome:
    owed = {
        "b beside a flood that is refused": _part(refused, "b", 1 / 2),
        "b beside a flood that waits": _part(queued, "b", 1 / 2),
    }
    shares = {tenant: weight / sum(WEIGHTS.values()) for tenant, weight in WEIGHTS.items()}
    owed |= {f"weight {WEIGHTS[tenant]}": _part(weights_queued, tenant, share) for tenant, share in shares.items()}
    hurried = [f"{_part(weights_refused, tenant, share):.2f}" for tenant, share in shares.items()]
    busy = [one.goodput / CAPACITY for one in (refused, queued)]
    failures = [f"{name} gets {part:.2f} of its share, not 0.9" for name, part in owed.items() if part < 1 - BELOW]
    failures += [f"only {part:.2f} of the fleet was busy: nobody had to share" for part in busy if part < 0.8]
    return Outcome(
        done=f"a asks for {FLOOD} times what b asks for, which is {MEEK:g} of {CAPACITY:.0f} calls a second; "
        f"then weights {', '.join(map(str, WEIGHTS.values()))}",
        counts={"calls": sum(len(one.answers) for one in (refused, weights_refused, queued, weights_queued))},
        figures={name: f"{part:.2f} of its share (≥ 0.90)" for name, part in owed.items()}
        | {"weights where callers wait 2 s": ", ".join(hurried)},
        failures=tuple(failures),
    )


def _part(offered: Offered, tenant: str, share: float) -> float:
    """Of what a tenant is owed, how much it got."""
    return offered.of(tenant=tenant).goodput / (offered.goodput * share)
