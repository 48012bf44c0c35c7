"""Whether what was measured is the generator instead of the service."""

from collections.abc import Iterator, Sequence

from millrace.load.generator.driving import MOST_IN_FLIGHT, NOT_SENT
from millrace.load.result import Generator, Stage, quantile_ms

MOST_CPU_SHARE = 0.85
"""Of a core: beyond it, messages wait for the generator before it looks at the clock."""
IDLE_CPU_SHARE = 0.5
"""Below it, it is not for its own work that a process is late."""
LATE_MS, LATE_SHARE = 5.0, 0.1
"""How late requests may be sent, at p99: the greater of so much, and such a part of the median latency."""


def bottleneck(generators: Sequence[Generator], total: Stage) -> str | None:
    """What gives it away, and what to do; None where nothing does."""
    busiest = max((one.cpu_share for one in generators), default=0.0)
    found = list(_signs(generators, total, busiest))
    if not found:
        return None
    if busiest > IDLE_CPU_SHARE:
        remedy = f"Give it more generators than {len(generators)}, on cores that the service does not need."
    else:
        remedy = "Its processes have little to do and get too little of the machine: give it one of its own."
    return f"The generator itself may be what was measured: {'; '.join(found)}. {remedy}"


def _signs(generators: Sequence[Generator], total: Stage, busiest: float) -> Iterator[str]:
    if busiest > MOST_CPU_SHARE:
        yield f"a process used {busiest:.0%} of a core"
    late_ms = max((one.late_p99_ms for one in generators), default=0.0)
    allowed_ms = max(LATE_MS, LATE_SHARE * (quantile_ms(total.histograms.get("e2e"), 0.5) or 0.0))
    if late_ms > allowed_ms:
        yield f"a request in a hundred was sent more than {late_ms:.1f} ms late"
    if not_sent := total.ended.get(NOT_SENT, 0):
        yield f"{not_sent} requests were not sent, because a process had {MOST_IN_FLIGHT:,} under way"
