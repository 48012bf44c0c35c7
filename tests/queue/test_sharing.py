"""Who goes next: by class, then fairly between tenants, then first come first served (I8)."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.queue.types import Lease, Priority
from tests.queue.bench import MODEL, Bench


async def test_a_tenant_is_served_first_come_first_served(bench: Bench) -> None:
    for job_id in "213":
        await bench.submit(job_id)
    assert await bench.job_ids(3) == ["2", "1", "3"]


async def test_a_higher_class_always_goes_first(bench: Bench) -> None:
    for priority in Priority:
        await bench.submit(priority.name, priority=priority)
    assert await bench.job_ids(3) == ["INTERACTIVE", "STANDARD", "BATCH"]


async def test_tenants_are_served_by_weight(bench: Bench) -> None:
    for index in range(30):
        await bench.submit(f"a{index}", tenant="a", weight=1.0)
        await bench.submit(f"b{index}", tenant="b", weight=2.0)
    served = Counter(job_id[0] for job_id in await bench.job_ids(30))
    assert served == {"a": 10, "b": 20}


async def test_a_tenant_that_floods_does_not_delay_one_that_comes_later(bench: Bench) -> None:
    for index in range(50):
        await bench.submit(f"a{index}", tenant="a")
    await bench.job_ids(20)
    await bench.submit("b", tenant="b")
    assert "b" in await bench.job_ids(2)


async def test_waiting_saves_up_nothing(bench: Bench) -> None:
    for index in range(20):
        await bench.submit(f"a{index}", tenant="a")
    await bench.job_ids(10)
    for index in range(10):
        await bench.submit(f"b{index}", tenant="b")
    served = Counter(job_id[0] for job_id in await bench.job_ids(10))
    assert served == {"a": 5, "b": 5}


async def test_a_tenant_pays_what_its_jobs_have_cost_not_what_was_estimated(bench: Bench) -> None:
    for index in range(40):
        await bench.submit(f"a{index}", tenant="a", cost=10)
        await bench.submit(f"b{index}", tenant="b", cost=10)
    served = Counter[str]()
    for _ in range(30):
        lease = await bench.take_one()
        served[lease.ref.tenant] += 1
        await bench.finish(lease, cost=5 if lease.ref.tenant == "a" else 10)
    assert served == {"a": 20, "b": 10}


async def test_a_job_that_does_not_fit_is_left_and_others_go_by(bench: Bench) -> None:
    await bench.submit("big", tenant="a", cost=100)
    await bench.submit("small", tenant="b", cost=10)
    (lease,) = await bench.take(jobs=2, cost=50)
    assert lease.ref.job_id == "small"
    assert await bench.job_ids(1) == ["big"]


tenants = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    weights=tenants,
    costs=st.lists(st.integers(1, 50), min_size=8, max_size=8),
    ratio=st.floats(0.1, 2.0),
    data=st.data(),
)
async def test_between_tenants_that_wait_the_served_cost_by_weight_stays_within_a_bound(
    bench: Bench, weights: dict[str, float], costs: list[int], ratio: float, data: st.DataObject
) -> None:
    """The bound, for tenants i and j of weights w, jobs of at most C (estimated or actual), at most R running at once:

    A tenant's virtual time is (served + running estimates) / w. The next one taken has the smallest, so when i is taken
    its served cost by weight is at most that of j plus j's running estimates: R·C/w_j ahead. It may then get ahead by
    what it runs, at most R·C/w_i, and its last job. So the difference never exceeds (R + 1)·C·(1/w_i + 1/w_j).
    """
    await bench.redis.flushall()
    most = max(1.0, ratio) * max(costs)
    for index in range(30):
        for tenant, weight in sorted(weights.items()):
            await bench.submit(f"{tenant}{index}", tenant=tenant, weight=weight, cost=costs[index % len(costs)])
    served, running, room = Counter[str](), list[Lease](), data.draw(st.integers(1, 4))
    while True:
        running += await bench.take(jobs=room - len(running))
        if await bench.redis.zcard(f"{MODEL.base}fair:20") < len(weights):
            break
        lease = running.pop(data.draw(st.integers(0, len(running) - 1)))
        cost = max(1, round(lease.cost * ratio))
        await bench.finish(lease, cost=cost)
        served[lease.ref.tenant] += cost
        for one, its in weights.items():
            for other, others in weights.items():
                bound = (room + 1) * most * (1 / its + 1 / others)
                assert abs(served[one] / its - served[other] / others) <= bound
