"""Where a request's time goes, in its own words: of every so many requests one is written to the log.

A trace is one event, `request.trace`, with the model, the job's id, and when the request came, found its model, was
queued, had its first result and its end, in milliseconds since 1970. What was asked and answered is in none.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from millrace.queue import JobRef

UNBOUNDED = -1
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """What is traced of a model."""

    on: bool = False
    rate: int = 1000
    """One request of so many."""
    count: int = UNBOUNDED
    """Traces that are still to be written."""


class Trace:
    """One request. `mark` notes that it has come so far, once for each step."""

    __slots__ = ("_at", "_ref")

    def __init__(self, ref: JobRef, received: float, resolved: float) -> None:
        """When it came, and when its model was known, by the monotonic clock; it is queued now."""
        self._ref = ref
        self._at = {"received": received, "resolved": resolved, "submitted": time.monotonic()}

    def mark(self, step: str) -> None:
        self._at.setdefault(step, time.monotonic())

    def write(self) -> None:
        """At the request's end, whatever it is; steps that it did not come to are left out."""
        self.mark("end")
        to_1970 = time.time() - time.monotonic()
        times = {f"{step}_ms": round((at + to_1970) * 1000) for step, at in self._at.items()}
        log.info("request.trace", model=str(self._ref.model), job_id=self._ref.job_id, **times)


class Tracing:
    """The settings of this frontend: of all models, and what some have of their own."""

    def __init__(self) -> None:
        self._of_all = TraceSettings()
        self._own: dict[str, dict[str, int]] = {}
        """By model and the names of TraceSettings."""
        self._seen = Counter[str]()

    def of(self, model: str) -> TraceSettings:
        """What holds for a model; empty: for those that have nothing of their own."""
        own = self._own.get(model)
        return replace(self._of_all, **own) if own else self._of_all  # type: ignore[arg-type]

    def change(self, model: str, changes: Mapping[str, int | None]) -> TraceSettings:
        """By the names of TraceSettings; what is None goes back to what holds for all models, or there to its default.
        Answers what holds then."""
        if model:
            own = {**self._own.get(model, {}), **changes}
            self._own[model] = {name: value for name, value in own.items() if value is not None}
        else:
            defaults = TraceSettings()
            values: dict[str, Any] = {
                name: getattr(defaults, name) if value is None else value for name, value in changes.items()
            }
            self._of_all = replace(self._of_all, **values)
        return self.of(model)

    def begin(self, ref: JobRef, received: float, resolved: float) -> Trace | None:
        """A trace of the request that was queued as this job, if it is its turn."""
        model = ref.model.name
        settings = self.of(model)
        if not settings.on or settings.count == 0:
            return None
        self._seen[model] += 1
        if self._seen[model] % settings.rate:
            return None
        if settings.count > 0:
            self._spend(model)
        return Trace(ref, received, resolved)

    def _spend(self, model: str) -> None:
        own = self._own.get(model, {})
        if "count" in own:
            own["count"] -= 1
        else:
            self._of_all = replace(self._of_all, count=self._of_all.count - 1)
