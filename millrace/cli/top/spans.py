"""What has grown between two readings of one process's series."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from millrace.cli.top.reading import Scraped
from millrace.scrape import Samples

STARTED = "process_start_time_seconds"


@dataclass(frozen=True, slots=True)
class Span:
    before: Samples
    now: Samples
    seconds: float

    def grown(self, name: str, /, **labels: str) -> float:
        return max(self.now.value(name, **labels) - self.before.value(name, **labels), 0.0)

    def rate(self, name: str, /, **labels: str) -> float:
        """A second."""
        return self.grown(name, **labels) / self.seconds

    def rates(self, name: str, label: str, /) -> dict[str, float]:
        """By a label's value, of those that have grown."""
        return {value: rate for value in self.now.by(name, label) if (rate := self.rate(name, **{label: value}))}

    def quantile(self, name: str, share: float) -> float | None:
        """Of what a histogram has observed within the span; None where that is nothing."""
        bounds = self.now.by(f"{name}_bucket", "le")
        return quantile({float(le): self.grown(f"{name}_bucket", le=le) for le in bounds}, share)


def process_span(before: Scraped | None, now: Scraped) -> Span | None:
    """Of what the process counts itself: from nothing, where it was started anew in between. None: one is missing."""
    if before is None or before.samples is None or now.samples is None or now.at_s <= before.at_s:
        return None
    anew = before.samples.value(STARTED) != now.samples.value(STARTED)
    return Span(Samples({}) if anew else before.samples, now.samples, now.at_s - before.at_s)


def fleet_span(before: Mapping[str, Scraped], now: Mapping[str, Scraped], name: str) -> Span | None:
    """Of the series with this name, which each process tells alike: out of the first that has told both times."""
    for address, later in now.items():
        earlier = before.get(address)
        if earlier is None or earlier.samples is None or later.samples is None or later.at_s <= earlier.at_s:
            continue
        if name in earlier.samples and name in later.samples:
            return Span(earlier.samples, later.samples, later.at_s - earlier.at_s)
    return None


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Interpolated linearly within its bucket, as Prometheus's histogram_quantile does it; the largest finite bound
    where it lies beyond that. `buckets`: how many lie at or below each bound."""
    rank = share * buckets.get(math.inf, 0.0)
    if not rank:
        return None
    bound, below = 0.0, 0.0
    for upper, count in sorted(buckets.items()):
        if count >= rank:
            return bound if math.isinf(upper) else bound + (upper - bound) * (rank - below) / (count - below)
        bound, below = upper, count
    return None
