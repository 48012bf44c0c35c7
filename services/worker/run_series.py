"""How large runs are, and what Triton's users know as nv_inference_…: made of a worker's statistics at each scrape."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from millrace.queue import ModelTotals, ModelVersion, Runs

SIZES = {f"{1 << power}.0": float(1 << power) for power in range(11)} | {"+Inf": float("inf")}
"""As a bucket's label has it, and the number."""
Value = Callable[[ModelTotals], float]
TRITON: tuple[tuple[str, str, Mapping[str, str], Value], ...] = (
    ("request_success", "requests that succeeded", {}, lambda of: of.success.count),
    ("request_failure", "requests that failed", {"reason": "BACKEND"}, lambda of: of.failure.count),
    ("request_failure", "requests that failed", {"reason": "CANCELED"}, lambda of: of.cancelled.count),
    ("count", "inferences: rows of the requests that succeeded", {}, lambda of: of.rows),
    ("exec_count", "runs", {}, lambda of: of.runs),
    ("request_duration_us", "of requests that succeeded", {}, lambda of: of.success.ns / 1e3),
    ("queue_duration_us", "until the first run", {}, lambda of: of.queue.ns / 1e3),
    ("compute_input_duration_us", "in front of the runs", {}, lambda of: of.compute_input.ns / 1e3),
    ("compute_infer_duration_us", "in runs", {}, lambda of: of.compute_infer.ns / 1e3),
    ("compute_output_duration_us", "behind the runs", {}, lambda of: of.compute_output.ns / 1e3),
)
"""Name, meaning, further labels, value. The names have no _total, and are therefore of no type."""


class RunSeries(Collector):
    """`read` gives what was done, by model."""

    def __init__(self, read: Callable[[], Mapping[ModelVersion, ModelTotals]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        models = self._read()
        sizes = HistogramMetricFamily(
            "millrace_worker_batch_size", "runs, by their rows (sequences, where it generates)", labels=["model"]
        )
        for model, totals in models.items():
            buckets, rows = _cumulate(totals.batches)
            sizes.add_metric([str(model)], buckets, rows)
        yield sizes
        yield from _triton(models)


def _cumulate(batches: Mapping[int, Runs]) -> tuple[list[tuple[str, float]], float]:
    buckets = [
        (label, float(sum(runs.count for size, runs in batches.items() if size <= most)))
        for label, most in SIZES.items()
    ]
    return buckets, sum(size * runs.count for size, runs in batches.items())


def _triton(models: Mapping[ModelVersion, ModelTotals]) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for name, text, labels, value in TRITON:
        full = f"nv_inference_{name}"
        family = families.setdefault(full, Metric(full, text, "unknown"))
        for model, totals in models.items():
            family.add_sample(full, {"model": model.name, "version": model.version, **labels}, value(totals))
    yield from families.values()
