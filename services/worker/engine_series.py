"""What engines say of themselves: counters become millrace_engine_NAME_total, gauges millrace_engine_NAME, by model."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Read = Callable[[], Mapping[str, float]]
MEANINGS = {
    "steps": "steps that ran something",
    "prompt_tokens": "of the prompts that were begun with, those included that a cache held",
    "completion_tokens": "tokens computed, whether or not anybody got them",
    "tokens_after_cancel": "tokens computed for jobs that were cancelled meanwhile",
    "preempted_sequences": "sequences that gave way for want of KV memory, and were computed again",
    "guessed_tokens": "tokens guessed ahead (speculative_tokens)",
    "right_guesses": "and of those, the ones that were right",
    "prefix_cache_queried_tokens": "of prompts that were looked for in the prefix cache",
    "prefix_cache_hit_tokens": "and of those, the ones found there",
    "batches": "runs of a model of tensors",
    "rows": "rows in them",
    "rows_after_abort": "and of those, the ones of jobs that were cancelled meanwhile",
    "kv_blocks": "blocks of KV memory; slots, where each row has one of its own",
    "kv_blocks_used": "and of those, the ones that sequences have",
    "kv_cache_usage": "their share, 0 to 1",
}
"""Of what our own engines tell; others may tell anything."""


class EngineSeries(Collector):
    """Reads the engines at each collection."""

    def __init__(self) -> None:
        self._counters: dict[str, Read] = {}
        self._gauges: dict[str, Read] = {}

    def add(self, model: str, counters: Read, gauges: Read) -> None:
        self._counters[model], self._gauges[model] = counters, gauges

    def remove(self, model: str) -> None:
        self._counters.pop(model, None)
        self._gauges.pop(model, None)

    def collect(self) -> Iterator[Metric]:
        for name, values in _by_name(self._counters).items():
            yield _fill(CounterMetricFamily(f"millrace_engine_{name}", _meaning(name), labels=["model"]), values)
        for name, values in _by_name(self._gauges).items():
            yield _fill(GaugeMetricFamily(f"millrace_engine_{name}", _meaning(name), labels=["model"]), values)


def _meaning(name: str) -> str:
    return MEANINGS.get(name, "told by the engine; see its documentation")


def _by_name(sources: dict[str, Read]) -> dict[str, dict[str, float]]:
    """By a value's name and by model."""
    names: dict[str, dict[str, float]] = {}
    for model, read in list(sources.items()):
        for name, value in read().items():
            names.setdefault(name, {})[model] = value
    return names


def _fill(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]) -> Metric:
    for model, value in values.items():
        family.add_metric([model], value)
    return family
