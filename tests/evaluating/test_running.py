"""Evaluations of a played classifier through a real frontend and a real Valkey."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from millrace import AsyncClient
from millrace.errors import Code, Exhausted, JobFailed, MillraceError, NotFound, Unavailable
from millrace.evaluating.asking import Answer, Asker, Failure, Journal, Options, Progress, Target, ask_all
from millrace.evaluating.asking.running import Watch
from millrace.evaluating.data import Dataset, Example
from millrace.evaluating.evaluation import Plan, evaluate, prepare
from millrace.evaluating.result import Result
from millrace.queue import Priority
from tests.evaluating.conftest import Classifier
from tests.evaluating.examples import labelled, write_lines

ANIMALS = [("cat", "cat"), ("dog", "cat"), ("stone", "cat"), ("broken", "broken"), ("owl", "owl")]


@contextmanager
def unwatched(target: Target, dataset: Dataset, journal: Journal) -> Iterator[Watch]:
    yield lambda step: None


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    records = [{"text": f"{word} {place}", "label": label} for place, (word, label) in enumerate(ANIMALS)]
    path = write_lines(tmp_path / "animals.jsonl", records)
    return Plan(model="typed", data=path, kind="classify", resamples=100)


async def run(client: AsyncClient, plan: Plan, folder: Path, **settings: Any) -> Result:
    return await evaluate(client, await prepare(client, plan), folder, unwatched, **settings)


async def test_failed_examples_are_counted_and_stop_nothing(
    client: AsyncClient, classifier: Classifier, plan: Plan, tmp_path: Path
) -> None:
    result = await run(client, plan, tmp_path)
    assert (result.system.answered, result.system.failed, result.data.examples) == (3, 2, 5)
    assert {(one.code, one.reason, one.count) for one in result.system.failures} == {
        ("INVALID_ARGUMENT", "INVALID_REQUEST", 1),
        ("INTERNAL", "MODEL_FAILED", 1),
    }
    accuracy = result.system.measure("accuracy")
    assert accuracy is not None
    assert accuracy.value == pytest.approx(2 / 3)


async def test_the_next_start_asks_only_for_what_is_missing_or_may_pass(
    client: AsyncClient, classifier: Classifier, plan: Plan, tmp_path: Path
) -> None:
    await run(client, plan, tmp_path)
    classifier.asked.clear()
    classifier.is_broken = False
    result = await run(client, plan, tmp_path)
    assert classifier.asked == ["broken 3"]
    assert (result.system.answered, result.system.failed) == (4, 1)
    await run(client, plan.model_copy(update={"limit": 2}), tmp_path)
    assert classifier.asked == ["broken 3"]
    await run(client, plan, tmp_path, fresh=True)
    assert len(classifier.asked) == 6


async def test_an_evaluation_that_is_interrupted_keeps_what_was_answered(
    client: AsyncClient, classifier: Classifier, plan: Plan, tmp_path: Path
) -> None:
    answered = asyncio.Event()

    @contextmanager
    def watching(target: Target, dataset: Dataset, journal: Journal) -> Iterator[Watch]:
        def watch(step: Progress) -> None:
            if len(journal.outcomes) == 2:
                answered.set()

        yield watch

    prepared = await prepare(client, plan.model_copy(update={"concurrency": 1}))
    task = asyncio.create_task(evaluate(client, prepared, tmp_path, watching))
    await asyncio.wait_for(answered.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = len(classifier.asked)
    result = await run(client, plan, tmp_path)
    assert result.system.answered + result.system.failed == 5
    assert {"cat 0", "dog 1"}.isdisjoint(classifier.asked[before:])


async def test_data_that_have_changed_are_evaluated_anew(
    client: AsyncClient, classifier: Classifier, plan: Plan, tmp_path: Path
) -> None:
    await run(client, plan, tmp_path)
    write_lines(plan.data, [{"text": "cat 9", "label": "cat"}])
    classifier.asked.clear()
    result = await run(client, plan, tmp_path)
    assert classifier.asked == ["cat 9"]
    assert result.system.answered == 1


async def test_a_model_or_a_version_that_is_not_served_is_named(
    client: AsyncClient, classifier: Classifier, plan: Plan
) -> None:
    with pytest.raises(NotFound, match="no model 'nobody'; served are: typed"):
        await prepare(client, plan.model_copy(update={"model": "nobody"}))
    with pytest.raises(NotFound, match="typed has no version '9'; it has: 1"):
        await prepare(client, plan.model_copy(update={"version": "9"}))
    with pytest.raises(NotFound, match="no version '9'"):
        await prepare(client, plan.model_copy(update={"against": "9"}))
    with pytest.raises(ValueError, match="is typed/1 itself"):
        await prepare(client, plan.model_copy(update={"against": "1"}))


async def test_a_service_that_goes_away_ends_it_and_the_next_start_goes_on(
    client: AsyncClient, classifier: Classifier, plan: Plan, tmp_path: Path
) -> None:
    prepared = await prepare(client, plan)
    async with AsyncClient("127.0.0.1:1", retry_s=0.1) as gone:
        with pytest.raises(Unavailable):
            await evaluate(gone, prepared, tmp_path, unwatched)
    assert (await run(client, plan, tmp_path)).system.answered == 3


class Moody(Asker):
    """Raises what it is given, in turn, before it answers."""

    def __init__(self, *moods: Exception) -> None:
        self.moods, self.jobs = [*moods], list[str]()

    async def ask(self, example: Example, job_id: str) -> Answer:
        self.jobs.append(job_id)
        if self.moods:
            raise self.moods.pop(0)
        return Answer(label=example.truth)


async def asked(asker: Moody, path: Path, count: int = 1) -> Journal:
    with Journal(path / "journal.jsonl", "m") as journal:
        await ask_all(asker, labelled(*["cat"] * count), journal, lambda step: None, concurrency=4)
        return journal


def full() -> Exhausted:
    return Exhausted("the queue is full", reason="QUEUE_FULL", retry_after_s=0.01)


async def test_a_full_service_is_asked_again_for_the_same_job(tmp_path: Path) -> None:
    moody = Moody(full(), full())
    assert (await asked(moody, tmp_path)).outcomes == {"0": Answer(label="cat")}
    assert len(moody.jobs) == 3
    assert len(set(moody.jobs)) == 1


async def test_a_service_that_is_full_for_too_long_ends_it(tmp_path: Path) -> None:
    with pytest.raises(Exhausted):
        await asked(Moody(Exhausted("the day's quota", reason="QUOTA", retry_after_s=10_000)), tmp_path)


async def test_a_job_that_the_service_lost_is_made_anew_and_not_for_ever(tmp_path: Path) -> None:
    failed = JobFailed(Code.UNAVAILABLE, "too many workers died", reason="ATTEMPTS_EXHAUSTED")
    moody = Moody(failed, failed)
    assert (await asked(moody, tmp_path)).outcomes == {"0": Answer(label="cat")}
    assert len(set(moody.jobs)) == 3
    lost = await asked(Moody(failed, failed, failed), tmp_path / "other")
    assert isinstance(lost.outcomes["0"], Failure)


async def test_an_answer_that_cannot_be_judged_is_a_failure_of_its_example(tmp_path: Path) -> None:
    journal = await asked(Moody(ValueError("the scores are not finite"), FileNotFoundError("gone")), tmp_path, 3)
    failures = [one.message for one in journal.outcomes.values() if isinstance(one, Failure)]
    assert failures == ["the scores are not finite", "gone"]


async def test_what_would_meet_all_others_too_ends_it(tmp_path: Path) -> None:
    other = MillraceError("is called by Embed", reason="TASK_UNIMPLEMENTED")
    other.code = Code.UNIMPLEMENTED
    for error in (other, NotFound("no model", reason="MODEL_UNKNOWN"), Unavailable("away", reason="DRAINING")):
        with pytest.raises(MillraceError, match=str(error)):
            await asked(Moody(error), tmp_path)


async def test_calls_wait_behind_everybody_elses(client: AsyncClient, classifier: Classifier) -> None:
    asker = Asker(client, Target(model="typed", version="1", task="classify"), "classify", Options())
    answer = await asker.ask(Example(id="0", text="cat"), "job-1")
    assert answer == Answer(label="cat", scores={"cat": 0.75, "other": 0.25})
    assert classifier.priorities == {Priority.BATCH}
