"""vLLM's names of what a worker counts of models that generate, version 1 of its engine.

Left out is what has another meaning here: vllm:inter_token_latency_seconds is of each token, and a worker counts steps.
"""

from collections.abc import Callable, Iterator, Mapping

from millrace.exposition import Alias, Relabel
from millrace.queue import ModelVersion

ENGINE_COUNTS = "computed by the engine, whether or not somebody got it; absent where an engine does not count it"
NAMES: tuple[tuple[str, str, str, str], ...] = (
    ("num_requests_running", "millrace_worker_jobs_running", "gauge", "those included that the engine prepares"),
    (
        "request_success_total",
        "millrace_worker_jobs_ended",
        "counter",
        "without finished_reason: all that ended well, whatever the reason",
    ),
    ("time_to_first_token_seconds", "millrace_worker_ttft_seconds", "histogram", ""),
    ("request_time_per_output_token_seconds", "millrace_worker_tpot_seconds", "histogram", ""),
    ("e2e_request_latency_seconds", "millrace_worker_job_seconds", "histogram", "without failures"),
    ("request_queue_time_seconds", "millrace_worker_wait_seconds", "histogram", "until the first lease"),
    (
        "request_prefill_time_seconds",
        "millrace_worker_prefill_seconds",
        "histogram",
        "with what it waits inside the engine",
    ),
    ("request_decode_time_seconds", "millrace_worker_decode_seconds", "histogram", ""),
    ("prompt_tokens_total", "millrace_engine_prompt_tokens", "counter", ENGINE_COUNTS),
    ("generation_tokens_total", "millrace_engine_completion_tokens", "counter", ENGINE_COUNTS),
    ("kv_cache_usage_perc", "millrace_engine_kv_cache_usage", "gauge", "of slots, where each row has one of its own"),
    ("prefix_cache_queries_total", "millrace_engine_prefix_cache_queried_tokens", "counter", ""),
    ("prefix_cache_hits_total", "millrace_engine_prefix_cache_hit_tokens", "counter", ""),
    (
        "num_preemptions_total",
        "millrace_engine_preempted_sequences",
        "counter",
        "for want of memory; what gave way to a higher class is in millrace_worker_preemptions_total",
    ),
)
"""Theirs without vllm:, ours without _total, the type, and the difference, if any."""


def aliases(generates: Callable[[str], bool]) -> Iterator[Alias]:
    """`generates`: whether the model, as NAME/VERSION, does."""
    relabel = _relabel(generates)
    for name, of, kind, difference in NAMES:
        yield Alias(name=f"vllm:{name}", of=of, kind=kind, difference=difference, relabel=relabel)


def _relabel(generates: Callable[[str], bool]) -> Relabel:
    def relabel(labels: Mapping[str, str]) -> dict[str, str] | None:
        if not generates(labels["model"]) or labels.get("code", "OK") != "OK":
            return None
        model = ModelVersion.parse(labels["model"])
        kept = {"le": labels["le"]} if "le" in labels else {}
        return {"model_name": model.name, "version": model.version} | kept

    return relabel
