"""What a sweep finds, as JSON. Rates are requests a second of the whole fleet."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from millrace.load.buckets import stack
from millrace.load.result import METRICS, Metric, Result, Stage
from millrace.load.scenario import Scenario, Slo, Strict

SCHEMA: Literal["millrace.sweep/1"] = "millrace.sweep/1"
KEPT_UP = 0.95
"""A share of what was due that a service which keeps up answers within the stage."""


class Point(Strict):
    """A run at one rate, or with one number of callers."""

    stage: Stage
    met: Mapping[str, bool] = Field(
        description="by limit: ttft, tpot, e2e as far as the SLO has them, errors, and throughput: it kept up"
    )
    quantiles_ms: Mapping[Metric, float] = Field(description="at the SLO's quantile")
    error_share: float = Field(description="of what was due: refused, failed or not answered in time")
    bottleneck: str | None = Field(default=None, description="why the generator itself may be what was measured")

    @property
    def meets(self) -> bool:
        return all(self.met.values())

    @property
    def throughput(self) -> float:
        """Requests a second that were answered. In a closed loop without errors by Little's law, callers / mean
        latency: its callers fall into step, so that how many end within the stage depends on where that ends."""
        alike = _moments(self.stage, "e2e") if self.stage.callers and not self.error_share else None
        return self.stage.throughput if alike is None else (self.stage.callers or 0) / alike.mean_s


class Moments(Strict):
    """Of a time."""

    mean_s: float
    scv: float = Field(description="squared coefficient of variation: variance / mean²")


class Service(Strict):
    """What a request takes where none waits: one caller."""

    requests: int
    e2e: Moments
    ttft: Moments | None = None
    tokens: float = Field(description="of a request, mean")
    prompt_tokens: float


class Sweep(Strict):
    """What the runs have shown."""

    schema_name: Literal["millrace.sweep/1"] = Field(default="millrace.sweep/1", alias="schema")
    scenario: Scenario
    slo: Slo
    started_at: str = Field(description="ISO 8601, UTC")
    task: str
    closed: Sequence[Point] = Field(description="by callers, rising; the first is one caller")
    points: Sequence[Point] = Field(description="open loops by rate, rising")
    saturation: float = Field(description="the throughput that the closed loop does not grow beyond")
    slots: int = Field(description="the fewest callers that reach it: requests that the fleet serves at once")
    knee: float | None = Field(description="where the open loops' throughput stops following the rate")
    best_rate: float | None = Field(
        description="the highest rate on offer that met the SLO; None where even the lowest missed"
    )
    workers: int = Field(description="ready for the model")
    service: Service
    hardware: Mapping[str, str | int | float]
    versions: Mapping[str, str]
    notes: Sequence[str] = ()


def judge(result: Result, slo: Slo, service_s: float) -> Point:
    """Whether a run met each limit. `service_s`: what a request takes where none waits, mean."""
    arrivals = result.scenario.arrivals
    stage = result.total.model_copy(update={"rate": arrivals.poisson, "callers": arrivals.callers})
    quantiles = quantiles_ms(stage, slo.quantile)
    met: dict[str, bool] = {
        metric: quantiles.get(metric, 0.0) <= limit for metric, limit in limits(slo).items() if limit is not None
    }
    error_share = 1 - stage.ok / stage.due if stage.due else 0.0
    return Point(
        stage=stage,
        met={**met, "errors": error_share <= slo.errors, "throughput": _kept_up(stage, service_s)},
        quantiles_ms=quantiles,
        error_share=error_share,
        bottleneck=result.bottleneck,
    )


def quantiles_ms(stage: Stage, share: float) -> dict[Metric, float]:
    """Of all metrics of which the stage has any."""
    found = stack([stage.histograms.get(metric) for metric in METRICS]).quantiles([share])[0].tolist()
    return {metric: value for metric, value in zip(METRICS, found, strict=True) if not math.isnan(value)}


def limits(slo: Slo) -> dict[Metric, float | None]:
    """Of latencies, in milliseconds."""
    return {"ttft": slo.ttft_ms, "tpot": slo.tpot_ms, "e2e": slo.e2e_ms}


def _kept_up(stage: Stage, service_s: float) -> bool:
    """Whether as many were answered within the stage as were due, or the queue grew: an SLO that allows long waits is
    met for a while at any rate. The number in service varies as a Poisson variable does, hence three deviations."""
    in_service = stage.offered_rate * service_s
    return stage.due - stage.answered <= max((1 - KEPT_UP) * stage.due, 3 * math.sqrt(2 * in_service))


def service(stage: Stage) -> Service:
    """Raises ValueError where a single caller was never answered."""
    e2e = _moments(stage, "e2e")
    if e2e is None or not stage.ok:
        ended = ", ".join(f"{code} {count}" for code, count in stage.ended.items()) or "none ended"
        raise ValueError(f"not one request of a single caller was answered in {stage.seconds:.0f} s: {ended}")
    return Service(
        requests=stage.ok,
        e2e=e2e,
        ttft=_moments(stage, "ttft"),
        tokens=stage.tokens / stage.ok,
        prompt_tokens=stage.prompt_tokens / stage.ok,
    )


def _moments(stage: Stage, metric: Metric) -> Moments | None:
    held = stack([stage.histograms.get(metric)])
    if not held.values_ms.size:
        return None
    mean_ms = np.average(held.values_ms, weights=held.counts[0])
    variance = np.average((held.values_ms - mean_ms) ** 2, weights=held.counts[0])
    return Moments(mean_s=float(mean_ms) / 1000, scv=float(variance / mean_ms**2))


def read_sweep(path: Path) -> Sweep:
    """Raises ValueError for a file that is not a sweep of this version, OSError where there is none."""
    try:
        return Sweep.model_validate_json(path.read_text())
    except (ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a sweep of `millrace load sweep` ({SCHEMA})") from error


def write_sweep(sweep: Sweep, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sweep.model_dump_json(by_alias=True))
