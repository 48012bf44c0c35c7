"""Jobs of several parts, and processors that fail."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from google.protobuf.message import Message

from millrace.engine import Work
from millrace.errors import Code
from millrace.oip.inference_pb2 import ModelInferResponse
from services.worker.batch import BatchEngine
from services.worker.batch.graph import Array, Port
from services.worker.batch.processor import Part
from tests.graphs import affine
from tests.worker.batch.requests import engine_of
from tests.worker.steps import leased, step

ROW = {"x": np.zeros((1, 3), np.float32)}


class Counting:
    """A processor whose jobs have `count` parts; `between` is called before each but the first is made."""

    def __init__(self, count: int, between: Callable[[str], object] = lambda lease: None) -> None:
        self._count, self._between = count, between

    def parts(self, work: Work) -> Iterator[Part]:
        for number in range(len(work.results), self._count):
            if number > len(work.results):
                self._between(work.lease)
            yield Part(feed=ROW, last=number == self._count - 1)

    def respond(self, part: Part, outputs: Sequence[tuple[Port, Array]]) -> Message:
        return ModelInferResponse(model_name="tested", id="last" if part.last else "")


def counting(count: int, between: Callable[[BatchEngine, str], object] = lambda engine, lease: None) -> BatchEngine:
    engine = engine_of(affine())
    processor = Counting(count, lambda lease: between(engine, lease))
    engine._processors = {**engine._processors, "count": processor}
    return engine


def work(lease: str, results: Sequence[bytes] = ()) -> Work:
    return replace(leased(lease, b"", results), task="count")


def test_parts_of_several_jobs_share_runs_and_each_ends_with_its_last() -> None:
    engine = counting(3)
    engine.add(work("a"))
    engine.add(work("b", [b"one"]))
    seen = [[(output.lease, output.last, output.cost) for output in step(engine)] for _ in range(3)]
    assert seen == [[("a", False, 1), ("b", False, 1)], [("a", False, 2), ("b", True, 2)], [("a", True, 3)]]
    assert engine.step() is None


def test_a_job_whose_log_holds_all_parts_only_ends() -> None:
    engine = counting(2)
    engine.add(work("a", [b"one", b"two"]))
    (output,) = step(engine)
    assert (output.last, output.result, output.failure) == (True, None, None)


def test_a_job_that_is_aborted_while_its_next_part_is_made_is_forgotten() -> None:
    engine = counting(2, lambda engine, lease: engine.abort(lease))
    room = engine.capacity()
    engine.add(work("a"))
    assert len(step(engine)) == 1
    assert engine.step() is None
    assert engine.capacity() == room


def test_a_part_that_cannot_be_made_ends_its_job_and_no_other() -> None:
    def fail(engine: BatchEngine, lease: str) -> None:
        if lease == "a":
            raise RuntimeError("a bug")

    engine = counting(2, fail)
    room = engine.capacity()
    for lease in "ab":
        engine.add(work(lease))
    assert [(output.lease, output.last) for output in step(engine)] == [("a", False), ("b", False)]
    (output,) = step(engine)
    assert (output.lease, output.last, output.failure and output.failure.code) == ("a", True, Code.INTERNAL)
    (output,) = step(engine)
    assert (output.lease, output.last, output.failure) == ("b", True, None)
    assert engine.capacity() == room
