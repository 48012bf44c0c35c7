"""What keys.py says of the keys."""

from dataclasses import replace

from redis.crc import key_slot

from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.types import Priority, Result
from tests.queue.bench import MODEL, Bench, result
from tests.queue.probe import dump

OWN_SLOT = "mr:job-index:"


async def test_all_keys_of_a_model_lie_in_one_slot_of_a_cluster(bench: Bench) -> None:
    for priority in Priority:
        await bench.submit(priority.name, priority=priority, watcher="f")
    await bench.emit(result(await bench.take_one(), 1))
    await bench.pass_time(4)
    names = [name for name in await dump(bench.redis) if not name.startswith(OWN_SLOT)]
    assert len(names) > 10
    assert {key_slot(name.encode()) for name in names} == {key_slot(MODEL.base.encode())}


async def test_two_models_do_not_see_each_other(bench: Bench) -> None:
    await bench.submit("j")
    other = await bench.queue.take(ModelVersion("story", "2"), "w", 1, jobs=1, cost=100, alone=True)
    assert other.leases == ()


def test_names_of_jobs_and_models_can_be_read_back() -> None:
    ref = JobRef(ModelVersion.parse("org/story/12"), "tenant.x", "job-1")
    assert ref.model == ModelVersion("org/story", "12")
    assert JobRef.parse(ref.model, ref.job) == ref


async def test_a_result_of_megabytes_passes_through(bench: Bench) -> None:
    ref = await bench.submit("j")
    lease = await bench.take_one()
    body = bytes(range(256)) * (16 << 10)
    await bench.emit(replace(result(lease, 1), result=body))
    assert [entry.body for entry in await bench.queue.read(ref) if isinstance(entry, Result)] == [body]
