"""What a worker counts."""

from collections.abc import Mapping

from prometheus_client import generate_latest

from millrace.errors import Code
from millrace.queue import ModelVersion, Verdict
from services.worker.metrics import Metrics
from tests.eventually import eventually
from tests.worker.bench import Bench, of
from tests.worker.counting import CountingEngine


async def test_a_host_counts_what_it_takes_runs_writes_and_ends(bench: Bench) -> None:
    engine = CountingEngine(slots=3)
    good, bad, unwanted = await bench.submit(20), await bench.submit(5, text="refuse"), await bench.submit(100_000)
    async with bench.host(engine) as host:
        await eventually(lambda: bench.ended(good))
        await eventually(lambda: bench.ended(bad))
        assert (bench.counted("millrace_worker_jobs_running"), bench.counted("millrace_worker_free_slots")) == (1, 2)
        await bench.queue.unwatch("test", [unwanted])
        await eventually(lambda: of(host, unwanted) is None)
    assert bench.counted("millrace_worker_jobs_taken_total") == 3
    assert bench.counted("millrace_worker_jobs_ended_total", code="OK") == 1
    assert bench.counted("millrace_worker_jobs_ended_total", code="INVALID_ARGUMENT") == 1
    assert bench.counted("millrace_worker_jobs_dropped_total", verdict="lost") == 1
    assert 20 <= bench.counted("millrace_worker_results_emitted_total") <= engine.numbers
    assert engine.steps <= bench.counted("millrace_worker_step_seconds_count") <= engine.steps + 1
    assert bench.counted("millrace_worker_step_seconds_sum") >= engine.steps * engine.step_s
    assert bench.counted("millrace_worker_jobs_running") == 0


def test_what_engines_count_is_told_by_model() -> None:
    metrics, counted = Metrics(), {"tokens": 5.0}

    def read() -> Mapping[str, float]:
        return counted

    metrics.watch_engine(ModelVersion("a", "1"), read)
    metrics.watch_engine(ModelVersion("b", "2"), lambda: {"tokens": 7, "rows": 1})
    counted["tokens"] = 6.0
    told = generate_latest(metrics.registry).decode().splitlines()
    assert 'millrace_engine_tokens_total{model="a/1"} 6.0' in told
    assert 'millrace_engine_tokens_total{model="b/2"} 7.0' in told
    assert 'millrace_engine_rows_total{model="b/2"} 1.0' in told


def test_the_device_and_verdicts_are_told() -> None:
    metrics = Metrics()
    metrics.watch_device(lambda: 1.5)
    model = metrics.of(ModelVersion("a", "1"))
    model.dropped(Verdict.UNWANTED)
    model.ended(Code.OK)
    value = metrics.registry.get_sample_value
    assert value("millrace_worker_device_stall_seconds") == 1.5
    assert value("millrace_worker_jobs_dropped_total", {"model": "a/1", "verdict": "unwanted"}) == 1
    assert value("millrace_worker_jobs_ended_total", {"model": "a/1", "code": "OK"}) == 1
