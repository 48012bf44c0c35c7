"""Where the time of a model's jobs goes: in the queue, in front of the runs, in them, and behind them.

A job of tensors is part of the steps that give it something; one that generates is part of every step from the first
that begins after it was added to the last that gives it something. All of it happens on the event loop, and costs a job
some 3 µs, and 0.3 µs more for each step that gives it something.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from millrace.engine import Output
from millrace.queue import Lease, ModelTotals, Runs, Spent


class Timer:
    """How often something happened, and how long it took together."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += max(seconds, 0.0)

    def spent(self) -> Spent:
        return Spent(self.count, round(self.seconds * 1e9))


@dataclass(slots=True)
class Size:
    """The runs of one batch size; seconds."""

    count: int = 0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0

    def runs(self) -> Runs:
        return Runs(self.count, *(round(seconds * 1e9) for seconds in (self.input_s, self.infer_s, self.output_s)))


class Totals:
    """What this process has done of one model version, however often it was loaded."""

    def __init__(self) -> None:
        self.generates = False
        self.rows = self.runs = 0
        self.last_run_at = 0.0
        """In seconds since 1970."""
        self.success, self.failure, self.cancelled = Timer(), Timer(), Timer()
        self.queue, self.compute_input, self.compute_infer, self.compute_output = Timer(), Timer(), Timer(), Timer()
        self.sizes: dict[int, Size] = {}

    def read(self) -> ModelTotals:
        return ModelTotals(
            last_run_ms=int(self.last_run_at * 1000),
            rows=self.rows,
            runs=self.runs,
            success=self.success.spent(),
            failure=self.failure.spent(),
            cancelled=self.cancelled.spent(),
            queue=self.queue.spent(),
            compute_input=self.compute_input.spent(),
            compute_infer=self.compute_infer.spent(),
            compute_output=self.compute_output.spent(),
            batches={size: runs.runs() for size, runs in list(self.sizes.items())},
        )


@dataclass(slots=True)
class _Job:
    """Seconds; those that say when are of the monotonic clock, and 0 where it has not happened."""

    queued: float
    """Until its first lease, by the server's clock."""
    since_submission: float
    """Until this lease, by the server's clock."""
    taken_at: float
    added_at: float = 0.0
    began_at: float = 0.0
    ran_until: float = 0.0
    running: float = 0.0
    rows: int = 0
    size: int = 0
    """Of the last run that it was part of."""
    failed: bool = False


class Ledger:
    """The times of the jobs that one host holds. `generates`: jobs are part of steps that give them nothing, too."""

    def __init__(self, totals: Totals, *, generates: bool) -> None:
        self._totals, self._generates = totals, generates
        totals.generates = generates
        self._jobs: dict[str, _Job] = {}
        self._fresh = set[str]()
        """Of jobs that generate, those that no step has begun with."""
        self._joined = set[str]()
        """And those whose last output is still to come; what they have run is `_ran` less `_Job.running`."""
        self._ran = 0.0

    def taken(self, lease: Lease) -> None:
        submitted = lease.submit_ms
        self._jobs[lease.token] = _Job(
            queued=(lease.first_take_ms - submitted) / 1000,
            since_submission=(lease.take_ms - submitted) / 1000,
            taken_at=time.monotonic(),
        )

    def added(self, token: str) -> None:
        """To the engine, which may have run it already."""
        if (job := self._jobs.get(token)) is not None and not job.added_at:
            job.added_at = time.monotonic()
            if self._generates:
                self._fresh.add(token)

    def ran(self, outputs: Sequence[Output], began: float, ended: float) -> None:
        """A step, by the monotonic clock."""
        began = max(began, max((output.began for output in outputs), default=0.0))
        size, input_s = self._step(outputs, began, ended) if self._generates else self._run(outputs, began, ended)
        if not size:
            return
        totals = self._totals
        totals.runs += 1
        totals.last_run_at = max(time.time(), totals.last_run_at)
        if (runs := totals.sizes.get(size)) is None:
            runs = totals.sizes[size] = Size()
        runs.count += 1
        runs.input_s += input_s
        runs.infer_s += ended - began

    def began_at(self, token: str) -> float:
        """When the first run began that the job was part of, by the monotonic clock; 0: not yet."""
        job = self._jobs.get(token)
        return job.began_at if job is not None else 0.0

    def ended(self, token: str) -> None:
        """The job's end is in its log."""
        if (job := self._forget(token)) is not None:
            now = time.monotonic()
            if job.failed:
                self._totals.failure.add(_age(job, now))
            else:
                self._succeed(job, now)

    def failed(self, token: str) -> None:
        """The shell itself ends the job."""
        if (job := self._forget(token)) is not None:
            self._totals.failure.add(_age(job, time.monotonic()))

    def cancelled(self, token: str) -> None:
        """The queue has ended the job."""
        if (job := self._forget(token)) is not None:
            self._totals.cancelled.add(_age(job, time.monotonic()))

    def dropped(self, token: str) -> None:
        """Others go on with the job, and will count it."""
        self._forget(token)

    def _forget(self, token: str) -> _Job | None:
        self._fresh.discard(token)
        self._joined.discard(token)
        return self._jobs.pop(token, None)

    def _run(self, outputs: Sequence[Output], began: float, ended: float) -> tuple[int, float]:
        """A run of those that it gave something; answers its rows, and what their input took."""
        size, input_s, jobs = 0, 0.0, []
        for output in outputs:
            if (job := self._jobs.get(output.lease)) is not None:
                job.failed = output.failure is not None
            if not _took_part(output):
                continue
            if job is None:
                size += max(round(output.cost), 1)
                continue
            size += max(round(output.cost) - job.rows, 1)
            job.rows = max(round(output.cost), job.rows + 1)
            input_s += self._begin(job, began)
            job.running += ended - max(began, job.added_at)
            job.ran_until = ended
            jobs.append(job)
        for job in jobs:
            job.size = size
        return size, input_s

    def _step(self, outputs: Sequence[Output], began: float, ended: float) -> tuple[int, float]:
        """A step of all that generate; answers how many they were, and what the input of those that joined took."""
        input_s = sum([self._join(token, began) for token in self._joining(outputs, began)])
        size = len(self._joined)
        self._ran += ended - began
        for output in outputs:
            if output.last and (job := self._jobs.get(output.lease)) is not None:
                job.failed = output.failure is not None
                if output.lease in self._joined:
                    self._joined.discard(output.lease)
                    job.rows, job.size, job.ran_until = 1, size, ended
                    job.running += self._ran
        return size, input_s

    def _joining(self, outputs: Sequence[Output], began: float) -> list[str]:
        """The jobs whose first step it is: they were added before, or it gave them something."""
        given = {output.lease for output in outputs if _took_part(output)} - self._joined
        self._fresh.difference_update([output.lease for output in outputs if not _took_part(output)])
        joining = [
            token
            for token in self._fresh | given
            if (job := self._jobs.get(token)) is not None and (token in given or job.added_at <= began)
        ]
        self._fresh.difference_update(joining)
        return joining

    def _join(self, token: str, began: float) -> float:
        self._joined.add(token)
        job = self._jobs[token]
        job.running -= self._ran
        return self._begin(job, began)

    def _begin(self, job: _Job, began: float) -> float:
        """A job's first run; answers what its input took, and 0 where it is not the first."""
        if job.began_at:
            return 0.0
        job.added_at = job.added_at or max(began, job.taken_at)
        job.began_at = max(began, job.added_at)
        return job.added_at - job.taken_at

    def _succeed(self, job: _Job, now: float) -> None:
        """One that only its end was missing of has not run here."""
        totals = self._totals
        began, until = job.began_at or now, job.ran_until or now
        added = job.added_at or now
        totals.success.add(_age(job, now))
        totals.queue.add(job.queued + began - added)
        totals.compute_input.add(added - job.taken_at)
        totals.compute_infer.add(job.running)
        totals.compute_output.add(now - until)
        totals.rows += job.rows
        if job.size:
            totals.sizes[job.size].output_s += now - until


def _took_part(output: Output) -> bool:
    """Whether the step has run it: what ends without a run has neither a result nor a cost."""
    return output.result is not None or output.cost > 0


def _age(job: _Job, now: float) -> float:
    return job.since_submission + now - job.taken_at
