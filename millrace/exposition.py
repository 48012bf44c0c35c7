"""What both kinds of process do with their series: exemplars, names that others know them by, and the text of /metrics.

A histogram's exemplars lead from a bucket to a trace that fell into it. They exist in OpenMetrics alone, which a
scraper asks for by its Accept header; whoever asks for nothing gets Prometheus's text format.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

SAMPLED = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f][13579bdf]")
SUFFIXES = ("_bucket", "_count", "_sum", "_total", "")
Relabel = Callable[[Mapping[str, str]], dict[str, str] | None]
"""A sample's labels under the other name; None: it has none there."""


def make_registry() -> CollectorRegistry:
    """With what is told of any process. OpenMetrics tells nothing of when a series began, which would be one more."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def expose(registry: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """The content type and the text for a scraper that sends this Accept header. Blocks while it is collected."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


def exemplar(traceparent: str) -> dict[str, str] | None:
    """The exemplar of an observation that belongs to a trace, in W3C's traceparent; None where it is not sampled."""
    found = SAMPLED.fullmatch(traceparent)
    return {"trace_id": found[1]} if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """The name that another system's dashboards know a series of ours by.

    Samples whose labels come out the same are added up. A counter's name has its _total where the other system has it.
    """

    name: str
    of: str
    """Ours, without _total."""
    kind: str = "gauge"
    """"gauge", "counter", "histogram", or "unknown" for a counter whose name has no _total."""
    difference: str = ""
    """From what the other system means by it."""
    relabel: Relabel

    def family(self, ours: Metric) -> Metric:
        family = Metric(self.name.removesuffix("_total"), f"as {self.of}, by another name", self.kind)
        sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for sample in ours.samples:
            if (labels := self.relabel(sample.labels)) is not None:
                key = self._suffix(sample), tuple(labels.items())
                sums[key] = sums.get(key, 0.0) + sample.value
        family.samples = [
            Sample(family.name + suffix, dict(labels), value, None, None) for (suffix, labels), value in sums.items()
        ]
        return family

    def _suffix(self, sample: Sample) -> str:
        suffix = next(suffix for suffix in SUFFIXES if sample.name.endswith(suffix))
        return "" if self.kind == "unknown" else suffix


class Aliases(Collector):
    """Collects series of ours anew, under their other names."""

    def __init__(self, sources: Iterable[Collector], aliases: Iterable[Alias]) -> None:
        self._sources, self._aliases = tuple(sources), tuple(aliases)

    def collect(self) -> Iterator[Metric]:
        ours = {family.name: family for source in self._sources for family in source.collect()}
        for alias in self._aliases:
            if alias.of in ours:
                yield alias.family(ours[alias.of])
