"""What a worker counts."""

from collections.abc import Mapping

from prometheus_client import generate_latest

from millrace.errors import Code
from millrace.exposition import expose
from millrace.queue import Ending, JobRef, Lease, ModelVersion, Priority, Verdict
from millrace.v1.generation_pb2 import Usage
from millrace.v1.job_pb2 import Timing
from services.worker.metrics import Metrics
from services.worker.results import Ended
from services.worker.statistics import Ledger
from tests.eventually import eventually
from tests.worker.bench import Bench, of
from tests.worker.counting import CountingEngine
from tests.worker.test_statistics import begin, output

MODEL = ModelVersion("a", "1")
TRACE = "0af7651916cd43dd8448eb211c80319c"


def ended(
    *, code: Code = Code.OK, attempts: int = 1, strikes: int = 0, last_offset: int = 0, tokens: int = 11
) -> Ended:
    """A generation that got this lease after 2 s, waited 1 s, was prefilled in 0.25 s and decoded in 0.5 s."""
    lease = Lease(
        ref=JobRef(MODEL, "default", "j"),
        token="t",
        epoch=attempts,
        strikes=strikes,
        attempts=attempts,
        priority=Priority.INTERACTIVE,
        last_offset=last_offset,
        history=bytes(8),
        cost=1,
        fingerprint="0" * 32,
        submit_ms=1_000,
        first_take_ms=1_500,
        take_ms=3_000,
        deadline_ms=600_000,
        task="generate",
        trace=f"00-{TRACE}-b7ad6b7169203331-01",
    )
    timing = Timing(attempts=attempts)
    timing.queued.FromMilliseconds(500)
    timing.batching.FromMilliseconds(1_000)
    timing.first_output.FromMilliseconds(250)
    timing.remaining_output.FromMilliseconds(500)
    usage = Usage(prompt_tokens=7, cached_prompt_tokens=4, completion_tokens=tokens)
    return Ended(lease=lease, ending=Ending(code=code), timing=timing, usage=usage, results=12, cost=18)


def told(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"millrace_worker_{name}", {"model": "a/1"} | labels)


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
    assert 0 < bench.counted("millrace_worker_results_emitted_total") <= engine.numbers
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
    value = metrics.registry.get_sample_value
    assert value("millrace_worker_device_stall_seconds") == 1.5
    assert value("millrace_worker_jobs_dropped_total", {"model": "a/1", "verdict": "unwanted"}) == 1


def test_where_the_time_of_a_generation_went_is_observed() -> None:
    metrics = Metrics()
    metrics.of(MODEL).ended(ended())
    assert told(metrics, "wait_seconds_sum", priority="interactive") == 0.5
    sums = {name: told(metrics, f"{name}_seconds_sum") for name in ("ttft", "prefill", "decode", "job", "tpot")}
    assert sums == {"ttft": 3.25, "prefill": 0.25, "decode": 0.5, "job": 3.75, "tpot": 0.05}
    tokens = [told(metrics, f"{kind}_tokens_total") for kind in ("prompt", "cached_prompt", "completion")]
    assert tokens == [7, 4, 11]


def test_attempts_and_strikes_tell_of_leases_that_were_lost() -> None:
    metrics = Metrics()
    for attempts, strikes in ((1, 0), (3, 2)):
        metrics.of(MODEL).ended(ended(attempts=attempts, strikes=strikes))
    assert (told(metrics, "attempts_count"), told(metrics, "attempts_sum")) == (2, 4)
    assert (told(metrics, "attempts_bucket", le="1.0"), told(metrics, "strikes_total")) == (1, 2)


def test_times_of_tokens_are_those_of_generations_that_one_worker_made_alone() -> None:
    metrics = Metrics()
    metrics.of(MODEL).ended(ended(last_offset=5))
    assert (told(metrics, "job_seconds_count"), told(metrics, "completion_tokens_total")) == (1, 11)
    assert (told(metrics, "ttft_seconds_count"), told(metrics, "tpot_seconds_count")) == (0, 0)


def test_of_a_failure_only_the_wait_is_observed() -> None:
    metrics = Metrics()
    metrics.of(MODEL).ended(ended(code=Code.INTERNAL))
    assert told(metrics, "jobs_ended_total", code="INTERNAL") == 1
    assert told(metrics, "wait_seconds_count", priority="interactive") == 1
    assert (told(metrics, "job_seconds_count"), told(metrics, "ttft_seconds_count")) == (0, 0)


def test_latencies_lead_to_their_traces() -> None:
    metrics = Metrics()
    metrics.of(MODEL).ended(ended())
    text = expose(metrics.registry, "application/openmetrics-text; version=1.0.0")[1].decode()
    led = {line.partition("_bucket")[0] for line in text.splitlines() if f'# {{trace_id="{TRACE}"}}' in line}
    assert led == {f"millrace_worker_{name}_seconds" for name in ("wait", "job", "ttft", "prefill", "decode", "tpot")}


def test_what_generates_has_its_series_under_vllms_names_too() -> None:
    metrics, tensors = Metrics(), ModelVersion("b", "2")
    for model in (MODEL, tensors):
        of_model = metrics.of(model)
        Ledger(of_model.totals, generates=model is MODEL)
        of_model.jobs.set(3)
        metrics.watch_engine(model, lambda: {"prompt_tokens": 9}, lambda: {"kv_cache_usage": 0.5})
    metrics.of(MODEL).ended(ended())
    metrics.of(MODEL).ended(ended(code=Code.INTERNAL))
    labels = {"model_name": "a", "version": "1"}

    def theirs(name: str, **more: str) -> float | None:
        return metrics.registry.get_sample_value(f"vllm:{name}", labels | more)

    assert (theirs("num_requests_running"), theirs("request_success_total")) == (3, 1)
    assert (theirs("prompt_tokens_total"), theirs("kv_cache_usage_perc")) == (9, 0.5)
    assert (theirs("time_to_first_token_seconds_sum"), theirs("e2e_request_latency_seconds_sum")) == (3.25, 3.75)
    assert theirs("request_queue_time_seconds_bucket", le="+Inf") == 2
    assert theirs("request_time_per_output_token_seconds_count") == 1
    assert 'model_name="b"' not in generate_latest(metrics.registry).decode()


def test_runs_are_told_by_their_size_and_under_tritons_names() -> None:
    metrics = Metrics()
    totals = metrics.of(MODEL).totals
    ledger = Ledger(totals, generates=False)
    for size in (1, 3, 3):
        now = begin(ledger, "t")
        ledger.ran([output("t", size)], now, now + 0.5)
        ledger.ended("t")
    assert [told(metrics, "batch_size_bucket", le=le) for le in ("1.0", "2.0", "4.0", "+Inf")] == [1, 1, 3, 3]
    assert told(metrics, "batch_size_sum") == 7
    told_triton = {
        name: metrics.registry.get_sample_value(f"nv_inference_{name}", {"model": "a", "version": "1"})
        for name in ("request_success", "count", "exec_count", "compute_infer_duration_us")
    }
    assert told_triton == {"request_success": 3, "count": 7, "exec_count": 3, "compute_infer_duration_us": 1_500_000}
    assert (
        metrics.registry.get_sample_value(
            "nv_inference_request_failure", {"model": "a", "version": "1", "reason": "CANCELED"}
        )
        == 0
    )


def test_gauges_of_an_engine_go_with_it() -> None:
    metrics = Metrics()
    metrics.of(MODEL)
    metrics.watch_engine(MODEL, dict, lambda: {"kv_blocks_used": 3})
    assert metrics.registry.get_sample_value("millrace_engine_kv_blocks_used", {"model": "a/1"}) == 3
    metrics.forget(MODEL)
    assert metrics.registry.get_sample_value("millrace_engine_kv_blocks_used", {"model": "a/1"}) is None


def test_whether_it_is_ready_is_told() -> None:
    metrics = Metrics()
    metrics.watch_readiness(lambda: True)
    assert metrics.registry.get_sample_value("millrace_worker_ready") == 1
