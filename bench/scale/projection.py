"""Projection: what measured costs of one request and one token mean for fleets that nobody has measured.

For each kind of process: cores = GPUs × (tokens a second × CPU of a token + requests a second × CPU of a request). Each
request's own first token is counted twice, which is a two-hundredth of it.
"""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from bench.scale.report import Part, Table

NAME = "projection"
GPUS = (10, 100, 1_000)
MERGED = (1, 4, 16)
BITS = 8 / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What each GPU does."""

    streams: int = 64
    step_ms: float = 32.0
    tokens: int = 256
    """Of a request."""
    busy: float = 0.7
    """What a process may use of its core, so that nobody waits for long."""

    @property
    def tokens_per_s(self) -> float:
        return self.streams * 1000 / self.step_ms

    @property
    def requests_per_s(self) -> float:
        return self.tokens_per_s / self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What a request, or a token, costs."""

    cpu_us: dict[str, float]
    scripts: float
    input_bytes: float
    output_bytes: float


def project(data: dict[str, Any], workload: Workload | None = None) -> Part:
    """`data`: of the part that measures costs."""
    workload = workload or Workload()
    request = _unit(data, "requests", workload.streams)
    token = _unit(data, "streams", workload.streams)
    gpu = of_one(workload, request, token)
    return Part(
        name=NAME,
        tables=(_fleets(workload, gpu), _walls(workload, request, token)),
        notes=(
            f"extrapolated, not measured: each GPU {workload.tokens_per_s:,.0f} tokens/s, {workload.streams} streams, "
            f"steps of {workload.step_ms:g} ms, {workload.tokens} tokens a request; Redis and a frontend have a core "
            f"each, which counts as full at {workload.busy:.0%}",
        ),
        data={"workload": asdict(workload), "request": asdict(request), "token": asdict(token), "gpu": gpu},
    )


def of_one(workload: Workload, request: Unit, token: Unit, merged: int = 1) -> dict[str, float]:
    """Per GPU: cores of each kind, scripts and megabits a second, where so many steps share one message."""
    tokens, requests = workload.tokens_per_s / merged, workload.requests_per_s
    cores = {
        f"{kind}_cores": (tokens * token.cpu_us[kind] + requests * request.cpu_us[kind]) / 1e6
        for kind in ("frontend", "worker", "redis")
    }
    return cores | {
        "scripts": tokens * token.scripts + requests * request.scripts,
        "input_mbit": (tokens * token.input_bytes + requests * request.input_bytes) * BITS,
        "output_mbit": (tokens * token.output_bytes + requests * request.output_bytes) * BITS,
    }


def _unit(data: dict[str, Any], load: str, at_once: int) -> Unit:
    """As measured with as many at once as a GPU has streams, or nearly."""
    points = [point for point in data["points"] if point["load"] == load]
    point = min(points, key=lambda each: abs(each["callers"] - at_once))
    return Unit(**{name: point[name] for name in ("cpu_us", "scripts", "input_bytes", "output_bytes")})


def _fleets(workload: Workload, gpu: dict[str, float]) -> Table:
    columns = ("GPUs", "tokens/s", "requests/s", "Redis servers", "frontends", "workers' own cores", "scripts/s")
    rows: list[tuple[str | float, ...]] = [
        (
            f"{gpus:,}",
            gpus * workload.tokens_per_s,
            gpus * workload.requests_per_s,
            *(str(ceil(gpus * gpu[f"{kind}_cores"] / workload.busy)) for kind in ("redis", "frontend")),
            gpus * gpu["worker_cores"],
            gpus * gpu["scripts"],
            gpus * gpu["input_mbit"],
            gpus * gpu["output_mbit"],
        )
        for gpus in GPUS
    ]
    return Table(title="Fleets", columns=(*columns, "Redis in, Mbit/s", "out, Mbit/s"), rows=rows)


def _walls(workload: Workload, request: Unit, token: Unit) -> Table:
    columns = ("steps in one message", "a message each, ms", "GPUs on one Redis", "on one frontend")
    rows = list[tuple[str | float, ...]]()
    for merged in MERGED:
        gpu = of_one(workload, request, token, merged)
        each = (workload.busy / gpu[f"{kind}_cores"] for kind in ("redis", "frontend"))
        rows.append((str(merged), workload.step_ms * merged, *(f"{gpus:,.0f}" for gpus in each)))
    return Table(title="Where one core is full", columns=columns, rows=rows)
