"""What is known of all jobs of one schedule: which stand, which are gone, and what was asked for under each name."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.types import Entry, Limits, Submission
from tests.simulation.life import Life, Pulse
from tests.simulation.promise import Broken


class Book:
    """`counts` collects how often everything happened."""

    def __init__(self, models: Iterable[ModelVersion], limits: Limits, counts: Counter[str]) -> None:
        self.limits, self.counts = limits, counts
        self.models = {model.base: model for model in models}
        self.pulses = {model: Pulse(limits.lease_ms) for model in self.models.values()}
        self.standing: dict[JobRef, Life] = {}
        self.past: list[Life] = []
        self.requests: dict[tuple[str, str], set[str]] = defaultdict(set)
        """Name → the fingerprints under which it was ever asked for."""
        self.latest_takes: dict[tuple[ModelVersion, str], tuple[int, bytes, int]] = {}
        """Worker → sequence, answer and time of its newest take."""
        self.holds: dict[ModelVersion, tuple[str, int]] = {}
        """Who makes room for a job with a strike, and until when."""

    @property
    def lives(self) -> list[Life]:
        return [*self.past, *self.standing.values()]

    @property
    def unended(self) -> list[Life]:
        return [life for life in self.standing.values() if life.ending is None]

    def find(self, ref: JobRef) -> Life:
        life = self.standing.get(ref)
        if life is None:
            raise Broken("I3", f"{ref.job} is not known, and yet the queue takes it for one")
        return life

    def of_name(self, tenant: str, job_id: str) -> list[Life]:
        return [life for life in self.lives if life.submission.ref.job == f"{tenant}:{job_id}"]

    def accept(self, submission: Submission, model: ModelVersion, now: int, now_s: float) -> None:
        """Raises Broken where the name has a job already."""
        ref = replace(submission.ref, model=model)
        if any(life.gone_s is None and life.has_name for life in self.of_name(ref.tenant, ref.job_id)):
            raise Broken("I7", f"{ref.job} was queued a second time")
        if self.of_name(ref.tenant, ref.job_id):
            self.counts[f"life: {'an anonymous job came' if ref.is_anonymous else 'a name was used'} again"] += 1
        self.standing[ref] = Life(replace(submission, ref=ref), now, now_s, self.limits.interest_ms)

    def bury(self, ref: JobRef, log: list[Entry], now_s: float) -> None:
        """The keys of an ended job went. Raises Broken where it had not ended."""
        life = self.standing.pop(ref)
        self.past.append(life)
        life.log, life.gone_s = log, now_s
        if life.ending is None:
            raise Broken("I1", f"{life} is gone, and had not ended")

    def lose_name(self, job: str, now: int) -> None:
        """An entry of the index went. Raises Broken where it was needed."""
        for life in self.standing.values():
            if str(life) == job:
                life.has_name = False
                if now < life.deadline_ms + self.limits.retention_ms:
                    raise Broken("I7", f"{life} lost its name before its results")
