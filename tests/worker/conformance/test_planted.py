"""The suite finds engines that break a sentence of the contract: each of these breaks one."""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from google.protobuf.message import DecodeError

from millrace.engine import Capacity, Output, Work
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse
from tests.worker.conformance import Conformance, Example
from tests.worker.conformance.driver import Driver
from tests.worker.conformance.test_engines import counted, deltas
from tests.worker.counting import CountingEngine


class Echoing(CountingEngine):
    """Says each end twice."""

    said: tuple[Output, ...] = ()

    def step(self) -> Sequence[Output] | None:
        outputs, self.said = [*self.said, *(super().step() or ())], ()
        self.said = tuple(output for output in outputs if output.last and output not in self.said)[:1]
        return outputs or None


class Stammering(CountingEngine):
    """Two outputs of a step for one job."""

    def step(self) -> Sequence[Output] | None:
        outputs = super().step()
        return outputs and [*outputs, *(super().step() or ())]


class Waiting(CountingEngine):
    """Waits for work."""

    def step(self) -> Sequence[Output] | None:
        if not self.jobs:
            time.sleep(0.03)
        return super().step()


class Trusting(CountingEngine):
    """Raises where a request cannot be parsed."""

    def add(self, work: Work) -> None:
        GenerateRequest.FromString(work.request)
        super().add(work)


class Blind(CountingEngine):
    """Has room until the next step, whatever was added."""

    ran = 0

    def step(self) -> Sequence[Output] | None:
        outputs = super().step()
        self.ran = len(self.jobs)
        return outputs

    def capacity(self) -> Capacity:
        return Capacity(jobs=self.slots - self.ran)


class Holding(CountingEngine):
    """Never gives a place back that was aborted."""

    def capacity(self) -> Capacity:
        return Capacity(jobs=self.slots - len(self.jobs) - len(self.aborted))


class Deaf(CountingEngine):
    """Goes on with what was aborted."""

    def abort(self, lease: str) -> None:
        pass


class Strict(CountingEngine):
    """Knows nobody who is unknown."""

    def abort(self, lease: str) -> None:
        if lease not in self.added:
            raise KeyError(lease)
        super().abort(lease)


class Forgetful(CountingEngine):
    """Begins anew."""

    def add(self, work: Work) -> None:
        super().add(replace(work, results=()))


class Naming(CountingEngine):
    """Keeps one job of a name."""

    def add(self, work: Work) -> None:
        for lease, job in list(self.added.items()):
            if job == work.job:
                super().abort(lease)
        super().add(work)


class Counting(CountingEngine):
    """Lets the epoch be seen."""

    def add(self, work: Work) -> None:
        super().add(work)
        if work.epoch > 1 and work.lease in self.jobs:
            done, wanted = self.jobs[work.lease]
            self.jobs[work.lease] = done, wanted + 1


class Starving(CountingEngine):
    """Runs the newest jobs only."""

    def step(self) -> Sequence[Output] | None:
        older = dict(list(self.jobs.items())[:-1])
        for lease in older:
            del self.jobs[lease]
        try:
            return super().step()
        finally:
            self.jobs = older | self.jobs


class Cheapening(CountingEngine):
    """Its costs fall."""

    def step(self) -> Sequence[Output] | None:
        outputs = super().step()
        for output in outputs or ():
            output.cost = 100 - output.cost
        return outputs


class Reusing(CountingEngine):
    """Gives the same message again, with something else in it."""

    message = GenerateResponse()

    def step(self) -> Sequence[Output] | None:
        outputs = super().step()
        for output in outputs or ():
            if isinstance(output.result, GenerateResponse):
                self.message.CopyFrom(output.result)
                output.result = self.message
        return outputs


class Resetting(CountingEngine):
    """Counts since the last job."""

    def counters(self) -> Mapping[str, float]:  # type: ignore[override]
        return {"numbers": float(sum(done for done, _ in self.jobs.values()))}


BROKEN: dict[type[CountingEngine], Callable[..., None]] = {
    Echoing: Conformance.test_every_job_ends_once_with_results,
    Stammering: Conformance.test_every_job_ends_once_with_results,
    Waiting: Conformance.test_a_step_answers_none_at_once_where_there_is_nothing_to_run,
    Trusting: Conformance.test_a_bad_request_is_a_failure_at_the_next_step_and_disturbs_nobody,
    Blind: Conformance.test_capacity_counts_jobs_that_were_not_stepped_yet,
    Holding: Conformance.test_an_abort_frees_the_place_by_the_next_step,
    Deaf: Conformance.test_who_is_aborted_says_nothing_more_and_others_go_on,
    Strict: Conformance.test_who_is_aborted_says_nothing_more_and_others_go_on,
    Forgetful: Conformance.test_a_job_goes_on_behind_its_results_as_if_nothing_had_happened,
    Naming: Conformance.test_one_job_under_two_leases_runs_twice,
    Counting: Conformance.test_nothing_depends_on_the_epoch,
    Starving: Conformance.test_a_job_ends_however_many_come_after_it,
    Cheapening: Conformance.test_every_job_ends_once_with_results,
    Reusing: Conformance.test_jobs_that_run_together_give_what_they_give_alone,
    Resetting: Conformance.test_counters_have_names_and_never_fall,
}


def example_of(engine: type[CountingEngine]) -> Example:
    return Example(
        build=lambda: engine(slots=3, step_s=0.0),
        requests=counted(4, 9, 2),
        bad_request=GenerateRequest(text="refuse").SerializeToString(),
        read=deltas,
    )


def run(test: Callable[..., None], engine: type[CountingEngine]) -> None:
    example = example_of(engine)
    given = {"example": example, "driver": Driver(example.build())}
    wanted = list(inspect.signature(test).parameters)[1:]
    test(Conformance(), **{name: given[name] for name in wanted})


@pytest.mark.parametrize(("engine", "test"), list(BROKEN.items()), ids=[engine.__name__ for engine in BROKEN])
def test_the_suite_finds(engine: type[CountingEngine], test: Callable[..., None]) -> None:
    run(test, CountingEngine)
    with pytest.raises((AssertionError, KeyError, DecodeError)):
        run(test, engine)
