"""The contract of millrace/engine.py, sentence by sentence."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from millrace.engine import CONTRACT, Signature
from millrace.v1.generation_pb2 import GenerateResponse
from services.worker.results import merge
from tests.worker.conformance.driver import Driver
from tests.worker.conformance.example import Example

GARBAGE = b"\xff\xff"
"""No protobuf message at all."""
HAMMER_S = 1.0
MOST_JOBS = 10_000


def alone(example: Example, index: int, job: str) -> list[bytes]:
    """The results of a job with the request of this index that nothing disturbs."""
    driver = Driver(example.build())
    driver.add(job, example.requests[index])
    driver.run(example.most_steps)
    assert driver.ended[job].failure is None
    return driver.log(job)


def fill(driver: Driver, example: Example) -> list[str]:
    """Adds jobs until there is no room; answers their leases."""
    leases: list[str] = []
    while driver.engine.capacity().jobs > 0:
        assert len(leases) < MOST_JOBS, "the engine's room has no end"
        leases.append(f"filler-{len(driver.added)}")
        driver.add(leases[-1], example.requests[len(leases) % len(example.requests)])
    return leases


class Conformance:
    """Tests of one engine: a subclass whose name begins with Test gives them the fixture `example`."""

    @pytest.fixture
    def driver(self, example: Example) -> Iterator[Driver]:
        """A driver of an engine that is empty before, and again after, the test."""
        driver = Driver(example.build())
        room = driver.engine.capacity().jobs
        yield driver
        for lease in driver.added - driver.ended.keys():
            driver.engine.abort(lease)
        assert driver.engine.step() is None, "something is left"
        assert driver.engine.capacity().jobs == room, "a place is left taken"

    def test_it_says_what_it_is(self, driver: Driver) -> None:
        engine = driver.engine
        assert engine.lanes >= 1
        assert isinstance(engine.signature, Signature)
        assert 1 <= getattr(engine, "contract", CONTRACT) <= CONTRACT

    # ── step ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_step_answers_none_at_once_where_there_is_nothing_to_run(self, driver: Driver, example: Example) -> None:
        for _ in range(2):
            began = time.monotonic()
            assert [driver.step() for _ in range(50)] == [None] * 50
            assert time.monotonic() - began < 1.0
            driver.add(f"{len(driver.added)}", example.requests[0])
            driver.run(example.most_steps)

    def test_every_job_ends_once_with_results(self, driver: Driver, example: Example) -> None:
        for index, request in enumerate(example.requests):
            driver.add(f"{index}", request)
        driver.run(example.most_steps * len(example.requests))
        assert driver.step() is None
        assert all(output.failure is None for output in driver.ended.values())
        assert all(driver.log(lease) for lease in driver.added)

    def test_jobs_that_run_together_give_what_they_give_alone(self, driver: Driver, example: Example) -> None:
        for index, request in enumerate(example.requests):
            driver.add(f"{index}", request)
            driver.step()
        driver.run(example.most_steps * len(example.requests))
        for index in range(len(example.requests)):
            job = f"{index}"
            assert example.read(driver.log(job)) == example.read(alone(example, index, job))

    def test_a_job_ends_however_many_come_after_it(self, driver: Driver, example: Example) -> None:
        driver.add("oldest", example.requests[0])
        fill(driver, example)
        while driver.engine.capacity().jobs <= 0:
            driver.step()
        driver.add("one of many", example.requests[0])
        for _ in range(example.most_steps):
            fill(driver, example)
            driver.step()
            if {"oldest", "one of many"} <= driver.ended.keys():
                break
        assert {"oldest", "one of many"} <= driver.ended.keys()

    # ── add ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_bad_request_is_a_failure_at_the_next_step_and_disturbs_nobody(
        self, driver: Driver, example: Example
    ) -> None:
        driver.add("good", example.requests[0])
        driver.add("bad", example.bad_request)
        driver.add("garbage", GARBAGE)
        driver.step()
        for lease in ("bad", "garbage"):
            failure = driver.ended[lease].failure
            assert failure is not None
            assert failure.message
            assert re.fullmatch(r"[A-Z][A-Z0-9_]*", failure.reason)
        driver.run(example.most_steps)
        assert example.read(driver.log("good")) == example.read(alone(example, 0, "good"))
        assert driver.log("bad") == driver.log("garbage") == []

    def test_results_that_cannot_be_read_raise_nothing_and_the_job_ends(self, driver: Driver, example: Example) -> None:
        driver.add("torn", example.requests[0], [GARBAGE])
        driver.run(example.most_steps)
        assert driver.log("torn") == []

    # ── capacity ─────────────────────────────────────────────────────────────────────────────────────────────────

    def test_capacity_counts_jobs_that_were_not_stepped_yet(self, driver: Driver, example: Example) -> None:
        room = driver.engine.capacity().jobs
        assert room > 0
        driver.add("one", example.requests[0])
        assert driver.engine.capacity().jobs < room
        driver.run(example.most_steps)
        assert driver.engine.capacity().jobs == room

    def test_capacity_runs_out_and_all_that_was_added_still_ends(self, driver: Driver, example: Example) -> None:
        leases = fill(driver, example)
        assert leases
        driver.run(example.most_steps * len(leases))

    # ── abort ────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_who_is_aborted_says_nothing_more_and_others_go_on(self, driver: Driver, example: Example) -> None:
        driver.add("stays", example.requests[0])
        driver.add("goes early", example.requests[1])
        driver.add("fails", example.bad_request)
        for lease in ("goes early", "fails", "unknown"):
            driver.abort(lease)
        driver.add("goes late", example.requests[2])
        driver.step()
        driver.abort("goes late")
        while "stays" not in driver.ended:
            assert {output.lease for output in driver.step() or ()} <= {"stays"}
        assert not {"goes early", "fails"} & driver.ended.keys()
        assert driver.log("goes early") == []
        assert example.read(driver.log("stays")) == example.read(alone(example, 0, "stays"))

    def test_an_abort_frees_the_place_by_the_next_step(self, driver: Driver, example: Example) -> None:
        leases = fill(driver, example)
        driver.abort(leases[0])
        driver.step()
        assert driver.engine.capacity().jobs > 0

    def test_who_comes_behind_an_abort_may_have_the_place(self, driver: Driver, example: Example) -> None:
        leases = fill(driver, example)
        for lease in leases:
            driver.abort(lease)
            driver.add(f"instead of {lease}", example.requests[0])
        driver.run(example.most_steps * len(leases))
        assert all(driver.ended[f"instead of {lease}"].failure is None for lease in leases)

    # ── continuation ─────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_job_goes_on_behind_its_results_as_if_nothing_had_happened(self, example: Example) -> None:
        for index, request in enumerate(example.requests):
            whole, costs = alone(example, index, "job"), set[float]()
            for size in range(len(whole)):
                driver = Driver(example.build())
                driver.add("again", request, whole[:size], job="job")
                driver.run(example.most_steps)
                assert driver.ended["again"].failure is None
                assert example.read(whole[:size] + driver.log("again")) == example.read(whole)
                costs.add(driver.ended["again"].cost)
            assert len(costs) == 1

    def test_results_that_the_shell_has_merged_do_as_well(self, example: Example) -> None:
        whole = alone(example, 0, "job")
        if len(whole) < 3:
            pytest.skip("a job has no results to merge")
        merged = GenerateResponse.FromString(whole[0])
        for body in whole[1:-1]:
            assert merge(merged, GenerateResponse.FromString(body))
        driver = Driver(example.build())
        driver.add("again", example.requests[0], [merged.SerializeToString()], job="job")
        driver.run(example.most_steps)
        assert example.read([merged.SerializeToString(), *driver.log("again")]) == example.read(whole)

    def test_a_job_whose_results_are_complete_only_ends(self, driver: Driver, example: Example) -> None:
        logs = [alone(example, index, f"{index}") for index in range(len(example.requests))]
        for index, request in enumerate(example.requests):
            driver.add(f"{index}", request, logs[index])
        driver.run(example.most_steps)
        for output in driver.ended.values():
            assert (output.result, output.failure) == (None, None)

    def test_one_job_under_two_leases_runs_twice(self, driver: Driver, example: Example) -> None:
        whole = alone(example, 0, "same")
        driver.add("old", example.requests[0], job="same")
        driver.step()
        driver.add("new", example.requests[0], whole[:-1], job="same")
        driver.add("newest", example.requests[0], job="same")
        driver.abort("new")
        driver.run(2 * example.most_steps)
        for lease in ("old", "newest"):
            assert example.read(driver.log(lease)) == example.read(whole)

    def test_nothing_depends_on_the_epoch(self, driver: Driver, example: Example) -> None:
        if example.uses_epoch:
            pytest.skip("a stub")
        driver.add("late", example.requests[0], epoch=7)
        driver.run(example.most_steps)
        assert example.read(driver.log("late")) == example.read(alone(example, 0, "late"))

    # ── counters, threads ────────────────────────────────────────────────────────────────────────────────────────

    def test_counters_have_names_and_never_fall(self, driver: Driver, example: Example) -> None:
        before = dict(driver.engine.counters())
        driver.add("one", example.requests[0])
        while "one" not in driver.ended:
            driver.step()
            after = dict(driver.engine.counters())
            assert all(after[name] >= value for name, value in before.items())
            before = after
        assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) for name in before)
        assert not any(name.endswith("_total") for name in before)

    def test_jobs_come_and_go_on_other_threads_while_steps_run(self, driver: Driver, example: Example) -> None:
        Hammer(driver, example).strike()


class Hammer:
    """Adds and aborts on threads of its own while each lane steps, for a second; then all must be as if alone."""

    def __init__(self, driver: Driver, example: Example) -> None:
        self._driver, self._example = driver, example
        self._whole = [alone(example, index, f"{index}") for index in range(len(example.requests))]
        self._added: dict[str, tuple[int, int]] = {}
        """Lease → which request, and behind how many of its results."""
        self._doomed: list[str] = []
        self._idle, self._stop = threading.Event(), threading.Event()
        self._errors: list[BaseException] = []

    def strike(self) -> None:
        lanes = [threading.Thread(target=self._guarded, args=(self._step,)) for _ in range(self._driver.engine.lanes)]
        others = [threading.Thread(target=self._guarded, args=(call,)) for call in (self._add, self._abort)]
        for thread in (*lanes, *others):
            thread.start()
        for thread in others:
            thread.join()
        deadline = time.monotonic() + 60
        while self._driver.unended and not self._errors:
            assert time.monotonic() < deadline, "not everything has ended"
            time.sleep(0.005)
        self._stop.set()
        for thread in lanes:
            thread.join()
        if self._errors:
            raise self._errors[0]
        self._check()

    def _check(self) -> None:
        assert len(self._added) > len(self._example.requests)
        for lease, (index, behind) in self._added.items():
            whole = self._whole[index]
            if lease not in self._driver.aborted:
                assert self._driver.ended[lease].failure is None
                found = self._example.read(whole[:behind] + self._driver.log(lease))
                assert found == self._example.read(whole)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            self._errors.append(error)

    def _step(self) -> None:
        while not (self._stop.is_set() or self._errors):
            if self._driver.step() is None:
                time.sleep(0.0005)

    def _add(self) -> None:
        dice, until = random.Random(1), time.monotonic() + HAMMER_S
        while time.monotonic() < until and not self._errors:
            self._driver.engine.counters()
            if self._driver.engine.capacity().jobs <= 0:
                time.sleep(0.0005)
                continue
            lease, index = f"hammered-{len(self._added)}", dice.randrange(len(self._whole))
            behind = dice.randrange(len(self._whole[index]))
            self._added[lease] = index, behind
            self._driver.add(lease, self._example.requests[index], self._whole[index][:behind], job=f"{index}")
            if dice.random() < 0.3:
                self._doomed.append(lease)

    def _abort(self) -> None:
        until = time.monotonic() + HAMMER_S
        while time.monotonic() < until and not self._errors:
            time.sleep(0.001)
            while self._doomed:
                self._driver.abort(self._doomed.pop())
