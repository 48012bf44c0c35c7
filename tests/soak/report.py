"""From samples to a table and sentences."""

from collections.abc import Sequence

from rich.table import Table

from tests.soak.growth import Bound, grows, growth, rises, trend
from tests.soak.samples import Sample

KIB, MIB = 1024, 1 << 20
FRONTEND = Bound(per_thousand=150 * KIB, noise=2 * MIB)
"""Measured over 25,000 calls of one kind: 30 KiB a thousand for those that end well, 42 where they are cancelled
(gRPC's aio server keeps a little of each, grpc#43360), 220 where each has a connection of its own, which one in eight
has here. Between two looks a frontend's memory moves by up to 1.4 MiB either way."""
WORKER = Bound(per_thousand=50 * KIB, noise=2 * MIB)
"""Measured: 12 KiB a thousand calls."""
REDIS = Bound(per_thousand=0, noise=MIB)
"""The names of jobs that are still there at the end of a round weigh 0.2 MiB."""
THREADS = Bound(per_thousand=0, noise=3)
BOUNDS = {
    "frontend memory": FRONTEND,
    "worker memory": WORKER,
    "redis memory": REDIS,
    "frontend threads": THREADS,
    "worker threads": THREADS,
}


def findings(samples: Sequence[Sample]) -> list[str]:
    """A sentence for each series that has grown, or did not come back to what it was."""
    broken = []
    for name in samples[0].counts:
        values = [sample.counts[name] for sample in samples]
        if rises(values):
            broken.append(f"{name} did not come back to {values[0]}: {', '.join(map(str, values))}")
    calls = [sample.calls for sample in samples]
    for name, bound in BOUNDS.items():
        values = [sample.levels[name] for sample in samples]
        if grows(calls, values, bound):
            most = _amount(name, bound.over(calls[-1] - calls[0]))
            broken.append(f"{name} grew by {_amount(name, growth(calls, values))}, more than {most}")
    return broken


def table(samples: Sequence[Sample]) -> Table:
    drawn = Table("series", "first", "last", "least", "most", "growth", "of it a thousand calls", "bound")
    calls = [sample.calls for sample in samples]
    for name in samples[0].counts:
        values = [sample.counts[name] for sample in samples]
        drawn.add_row(name, *(str(value) for value in _ends(values)), str(values[-1] - values[0]), "", "0")
    for name, bound in BOUNDS.items():
        values = [sample.levels[name] for sample in samples]
        each, most = 1000 * trend(calls, values), bound.over(calls[-1] - calls[0])
        numbers = (*_ends(values), growth(calls, values), each, most)
        drawn.add_row(name, *(_amount(name, number) for number in numbers))
    return drawn


def told(sample: Sample) -> str:
    return ", ".join(f"{name} {_amount(name, value)}" for name, value in sample.levels.items())


def _ends(values: Sequence[int]) -> tuple[int, int, int, int]:
    return values[0], values[-1], min(values), max(values)


def _amount(name: str, value: float) -> str:
    return f"{value / MIB:.2f} MiB" if name.endswith("memory") else f"{value:g}"
