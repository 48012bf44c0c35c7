"""What a schedule's callers want and how its workers are, drawn by its seed."""

from dataclasses import replace
from random import Random

from millrace.queue.keys import ANONYMOUS, JobRef, ModelVersion
from millrace.queue.types import Limits, Priority
from tests.simulation.call import Plan
from tests.simulation.held import Task
from tests.simulation.worker import Machine

MODELS = (ModelVersion("m", "1"), ModelVersion("m", "2"))
LIMITS = Limits(lease_ms=3_000, interest_ms=3_000, retention_ms=120_000, linger_ms=90_000)
TENANTS = ("a", "b", "c")
REQUESTS = ("1" * 32, "2" * 32)
LARGEST = 100.0
PADDING = 9_000
"""Makes a payload that does not go through the scripts."""


def draw_plans(rng: Random, models: list[ModelVersion]) -> list[Plan]:
    """Three to eight callers; some come with a name that another has used."""
    plans: list[Plan] = []
    for number in range(rng.randint(3, 8)):
        named = [plan for plan in plans if plan.is_named]
        twin = rng.random() < 0.25 and named
        plans.append(_twin(rng, rng.choice(named), models) if twin else _draw_plan(rng, number, models))
    return plans


def draw_machine(rng: Random, model: ModelVersion) -> Machine:
    return Machine(
        model=model,
        slots=rng.randint(1, 4),
        step_s=rng.choice([0.02, 0.1, 0.3, 0.7]),
        largest=LARGEST if rng.random() < 0.9 else LARGEST / 2,
        splits=rng.random() < 0.3,
        end_apart=rng.random() < 0.3,
        muddles=0.03 if rng.random() < 0.2 else 0.0,
        stubborn=rng.random() < 0.5,
    )


def _draw_plan(rng: Random, number: int, models: list[ModelVersion]) -> Plan:
    is_named = rng.random() < 0.7
    job_id = f"j{number}" if is_named else f"{ANONYMOUS}{number}"
    outlives = is_named and rng.random() < 0.25
    return Plan(
        ref=JobRef(rng.choice(models), rng.choice(TENANTS), job_id),
        fingerprint=REQUESTS[0],
        task=_draw_task(rng),
        cost=rng.choice([1, 10, 80]),
        priority=rng.choice([Priority.STANDARD, Priority.STANDARD, Priority.INTERACTIVE, Priority.BATCH]),
        timeout_ms=rng.choice([1_500, 5_000, 12_000, 25_000, 25_000]),
        resume_window_ms=rng.choice([0, 2_000, 8_000]) if is_named else 0,
        start_s=rng.uniform(0.0, 3.0),
        outlives_calls=outlives,
        leaves_after_s=_draw_leave(rng),
        returns=rng.random() < 0.6,
        cancels_after_s=rng.uniform(0.1, 3.0) if is_named and rng.random() < 0.15 else None,
    )


def _draw_task(rng: Random) -> Task:
    kind = rng.choices(["normal", "poison", "fragile", "broken"], [20, 2, 3, 1])[0]
    return Task(tokens=rng.choice([1, 2, 4, 8, 12]), kind=kind, padding=PADDING if rng.random() < 0.15 else 0)


def _twin(rng: Random, first: Plan, models: list[ModelVersion]) -> Plan:
    """Another caller of the same name: mostly with the same request, perhaps for another version."""
    ref = replace(first.ref, model=rng.choice(models))
    plan = replace(first, ref=ref, start_s=first.start_s + rng.choice([0.0, 0.001, 1.0, 6.0]) * rng.random())
    if rng.random() < 0.35:
        plan = replace(plan, fingerprint=REQUESTS[1], task=_draw_task(rng))
    return replace(plan, leaves_after_s=_draw_leave(rng), returns=rng.random() < 0.6, cancels_after_s=None)


def _draw_leave(rng: Random) -> float | None:
    return rng.uniform(0.05, 3.0) if rng.random() < 0.4 else None
