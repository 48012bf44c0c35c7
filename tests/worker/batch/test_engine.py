"""Requests in, batches through the graph, each request's own rows out."""

import functools
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from millrace.errors import Code
from millrace.tensors import TensorSpec
from services.worker.batch import BatchEngine
from tests.graphs import HIDDEN, VOCABULARY, affine, attention, embedding, identity, mixing
from tests.worker.batch.requests import Gate, answer, engine_of, gated, request, response_of, row, run, shared
from tests.worker.steps import leased, step

BUCKETS = {"sequence": [4, 8, 16]}


def text(ids: list[int], outputs: tuple[str, ...] = ()) -> bytes:
    return request(outputs, input_ids=np.array([ids], np.int64), attention_mask=np.ones((1, len(ids)), np.int64))


def test_a_graph_says_itself_what_it_takes_and_gives() -> None:
    signature = shared(attention).signature
    assert signature.inputs == tuple(TensorSpec(name, "INT64", (-1, -1)) for name in ("input_ids", "attention_mask"))
    assert signature.outputs == (
        TensorSpec("states", "FP32", (-1, -1, HIDDEN)),
        TensorSpec("mean", "FP32", (-1, HIDDEN)),
    )
    assert signature.max_batch_size == 32


def test_requests_that_wait_share_one_run_and_each_gets_its_own_rows() -> None:
    engine = shared(affine)
    for index in range(5):
        engine.add(leased(str(index), row(index, 0, -index)))
    outputs = step(engine)
    assert [output.lease for output in outputs] == [str(index) for index in range(5)]
    for index, output in enumerate(outputs):
        assert answer(output)["y"].tolist() == [[2 * index + 1, 1, 1 - 2 * index]]
        assert (output.last, output.cost) == (True, 1)


def test_a_response_names_the_model_and_echoes_the_requests_id() -> None:
    engine = shared(affine)
    ended = run(engine, {"a": request(request_id="mine", x=np.zeros((2, 3), np.float32))})
    response = response_of(ended["a"])
    assert (response.model_name, response.model_version, response.id) == ("tested", "1", "mine")
    assert list(response.outputs[0].shape) == [2, 3]


def test_requests_of_several_rows_are_batched_up_to_the_largest_run() -> None:
    engine = engine_of(affine(), max_rows=4)
    ids = iter(range(100))
    bodies = {
        name: request(x=np.full((rows, 3), next(ids), np.float32))
        for name, rows in zip("abcd", (2, 1, 2, 4), strict=True)
    }
    for lease, body in bodies.items():
        engine.add(leased(lease, body))
    assert [[output.lease for output in step(engine)] for _ in range(3)] == [["a", "b"], ["c"], ["d"]]
    ended = run(engine, bodies)
    assert answer(ended["c"])["y"].tolist() == [[5.0] * 3] * 2


def test_a_request_of_too_many_rows_is_refused() -> None:
    engine = engine_of(affine(), max_rows=4)
    failure = run(engine, {"a": request(x=np.zeros((5, 3), np.float32))})["a"].failure
    assert failure is not None
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, "inputs")


def test_rows_that_know_of_each_other_run_request_by_request() -> None:
    engine = shared(mixing)
    assert engine.signature.max_batch_size == 0
    bodies = {name: request(x=np.array([[value] * 3, [0] * 3], np.float32)) for name, value in (("a", 2), ("b", 6))}
    ended = run(engine, bodies)
    assert answer(ended["a"])["y"].tolist() == [[1] * 3, [-1] * 3]
    assert answer(ended["b"])["y"].tolist() == [[3] * 3, [-3] * 3]


def test_a_graph_of_fixed_shape_runs_request_by_request() -> None:
    engine = engine_of(affine(rows=1))
    assert engine.signature.max_batch_size == 0
    ended = run(engine, {"a": row(1, 2, 3), "b": row(4, 5, 6)})
    assert answer(ended["b"])["y"].tolist() == [[9, 11, 13]]


ids = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=16)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(ids, min_size=1, max_size=12), padded=st.booleans())
def test_each_row_is_what_it_would_be_alone(texts: list[list[int]], padded: bool) -> None:
    engine = bucketed() if padded else shared(attention)
    bodies = {str(index): text(ids) for index, ids in enumerate(texts)}
    together = {lease: answer(output) for lease, output in run(engine, bodies).items()}
    for lease, body in bodies.items():
        alone = answer(run(shared(attention), {lease: body})[lease])
        for name, values in alone.items():
            assert together[lease][name].shape == values.shape
            np.testing.assert_allclose(together[lease][name], values, atol=1e-5, rtol=0)


@functools.cache
def bucketed() -> BatchEngine:
    return engine_of(attention(), buckets=BUCKETS)


def test_texts_of_one_bucket_share_a_run_and_others_do_not() -> None:
    engine = bucketed()
    for lease, length in (("a", 3), ("b", 4), ("c", 5), ("d", 8), ("e", 17)):
        engine.add(leased(lease, text([1] * length)))
    assert [[output.lease for output in step(engine)] for _ in range(3)] == [["a", "b"], ["c", "d"], ["e"]]


def test_a_bucket_may_be_a_multiple_and_an_input_has_its_own_padding() -> None:
    engine = engine_of(identity(TensorProto.INT64, ("batch", "length")), buckets={"length": 4}, padding={"x": -7})
    for lease, size in (("a", 3), ("b", 4), ("c", 5)):
        engine.add(leased(lease, request(x=np.arange(size, dtype=np.int64)[np.newaxis])))
    gate = gated(engine)
    gate.opened.set()
    outputs = step(engine)
    assert (gate.runs, [output.lease for output in outputs]) == ([2], ["a", "b"])
    assert answer(outputs[0])["y"].tolist() == [[0, 1, 2]]
    step(engine)


def test_only_the_outputs_that_are_asked_for_come_back() -> None:
    engine = shared(attention)
    ended = run(engine, {"a": text([1, 2], ("mean",)), "b": text([3, 4], ("states",)), "c": text([5, 6])})
    assert [sorted(answer(ended[lease])) for lease in "abc"] == [["mean"], ["states"], ["mean", "states"]]


def test_a_request_that_makes_a_batch_fail_is_left_alone_with_that() -> None:
    engine = shared(embedding)
    good = {f"good{n}": request(ids=np.full((1, 4), n, np.int64)) for n in range(6)}
    bad = {f"bad{n}": request(ids=np.full((1, 4), VOCABULARY + n, np.int64)) for n in range(2)}
    bodies = dict(sorted((good | bad).items(), key=lambda item: item[0][-1]))
    ended = run(engine, bodies)
    for n in range(6):
        assert answer(ended[f"good{n}"])["vectors"].tolist() == [[[2 * n, 2 * n + 1]] * 4]
    for n in range(2):
        failure = ended[f"bad{n}"].failure
        assert failure is not None
        assert (failure.code, failure.reason) == (Code.INTERNAL, "MODEL_FAILED")
        assert "out of" in failure.message


def test_a_lost_device_ends_the_process_instead_of_failing_requests() -> None:
    engine = engine_of(affine())

    class Dead:
        def run(self, *_: Any) -> Any:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    engine._idle[0] = Dead()
    engine.add(leased("a", row(1, 2, 3)))
    with pytest.raises(RuntimeError, match="CUDA failure"):
        engine.step()


def test_the_next_batch_is_laid_out_while_one_runs() -> None:
    engine = engine_of(affine())
    gate = gated(engine)
    engine.add(leased("a", row(1, 1, 1)))
    ended: list[Any] = []
    running = threading.Thread(target=lambda: ended.extend(step(engine)))
    running.start()
    assert gate.began.wait(10)
    for lease in "bcd":
        engine.add(leased(lease, row(2, 2, 2)))
    assert not ended
    (forming,) = engine._forming
    assert forming._buffers["x"][:3].tolist() == [[2] * 3] * 3
    gate.opened.set()
    running.join(10)
    assert [output.lease for output in ended] == ["a"]
    assert [output.lease for output in step(engine)] == ["b", "c", "d"]
    assert gate.runs == [1, 3]


def test_two_sessions_run_two_batches_at_once() -> None:
    engine = engine_of(affine(), sessions=2, max_rows=1)
    assert engine.lanes == 2
    gates = [gated(engine), Gate(engine._idle[0])]
    engine._idle[0] = gates[1]
    for lease in "ab":
        engine.add(leased(lease, row(1, 1, 1)))
    threads = [threading.Thread(target=functools.partial(engine.step)) for _ in gates]
    for thread in threads:
        thread.start()
    assert all(gate.began.wait(10) for gate in gates)
    for gate in gates:
        gate.opened.set()
    for thread in threads:
        thread.join(10)
    assert [gate.runs for gate in gates] == [[1], [1]]


def test_what_waits_is_shared_out_over_the_lanes() -> None:
    engine = engine_of(affine(), sessions=2, max_rows=8)
    for index in range(5):
        engine.add(leased(str(index), row(index, 0, 0)))
    first = step(engine)
    engine.add(leased("5", row(5, 0, 0)))
    rest = [output for _ in range(3) for output in step(engine)]
    assert [output.lease for output in first] == ["0", "1", "2"]
    assert [output.lease for output in rest] == ["3", "4", "5"]
    assert [answer(output)["y"][0, 0] for output in (*first, *rest)] == [1, 3, 5, 7, 9, 11]


def test_a_batch_waits_only_as_long_as_the_models_file_says() -> None:
    engine = engine_of(affine(), delay_ms=5000, max_rows=2)
    engine.add(leased("a", row(1, 1, 1)))
    later = threading.Timer(0.02, lambda: engine.add(leased("b", row(2, 2, 2))))
    later.start()
    began = time.monotonic()
    assert [output.lease for output in step(engine)] == ["a", "b"]
    assert time.monotonic() - began < 4
    patient = engine_of(affine(), delay_ms=100, max_rows=2)
    patient.add(leased("c", row(3, 3, 3)))
    began = time.monotonic()
    assert [output.lease for output in step(patient)] == ["c"]
    assert time.monotonic() - began >= 0.09


def test_what_is_aborted_before_its_run_is_not_run() -> None:
    engine = engine_of(affine())
    gate = gated(engine)
    gate.opened.set()
    for lease in "abc":
        engine.add(leased(lease, row(ord(lease), 0, 0)))
    engine.abort("b")
    engine.abort("unknown")
    outputs = step(engine)
    assert [(output.lease, answer(output)["y"][0, 0]) for output in outputs] == [("a", 195.0), ("c", 199.0)]
    engine.add(leased("d", row(1, 1, 1)))
    engine.abort("d")
    assert engine.step() is None
    assert gate.runs == [2]


def test_there_is_room_for_what_runs_and_one_batch_behind_it() -> None:
    engine = engine_of(affine(), max_rows=4)
    assert engine.capacity().jobs == 8
    for lease in "abc":
        engine.add(leased(lease, row(1, 1, 1)))
    assert engine.capacity().jobs == 5
    engine.abort("a")
    assert engine.capacity().jobs == 6
    step(engine)
    assert engine.capacity().jobs == 8


def test_payloads_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(affine())
    monkeypatch.setattr("services.worker.batch.engine.HELD_BYTES", 100)
    body = row(1, 1, 1)
    engine.add(leased("a", body))
    assert engine.capacity().payload_bytes == 100 - len(body)
    for lease in "bc":
        engine.add(leased(lease, body))
    assert engine.capacity().jobs == 0
    step(engine)
    assert engine.capacity().payload_bytes == 100


def test_a_run_has_a_preferred_number_of_rows_where_as_many_wait() -> None:
    engine = engine_of(affine(), max_rows=8, preferred_rows=[4, 2])
    for index in range(7):
        engine.add(leased(str(index), row(index, 0, 0)))
    assert [len(step(engine)) for _ in range(3)] == [4, 2, 1]


def test_with_a_delay_fewer_rows_than_preferred_wait_for_more() -> None:
    engine = engine_of(affine(), max_rows=8, preferred_rows=[2, 4], delay_ms=10_000)
    engine.add(leased("a", row(1, 0, 0)))
    ran: list[int] = []
    thread = threading.Thread(target=lambda: ran.append(len(step(engine))))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    engine.add(leased("b", row(2, 0, 0)))
    thread.join(10)
    assert ran == [2]


def test_rows_that_are_enough_do_not_wait_behind_older_ones_of_another_shape() -> None:
    engine = engine_of(attention(), max_rows=8, preferred_rows=[2], delay_ms=10_000)
    engine.add(leased("old", text([1, 2, 3])))
    engine.add(leased("a", text([1, 2])))
    engine.add(leased("b", text([2, 1])))
    assert sorted(output.lease for output in step(engine)) == ["a", "b"]
    engine.abort("old")


def test_a_preferred_number_beyond_the_largest_run_is_a_broken_model() -> None:
    with pytest.raises(ValueError, match=r"batching\.preferred_rows: 9 is more than max_rows, 8"):
        engine_of(affine(), max_rows=8, preferred_rows=[9])
