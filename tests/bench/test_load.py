"""When requests are sent, and what they hold."""

import statistics
import time
from pathlib import Path

import numpy as np
import pytest

from bench import blobs
from bench.load import schedule, sleep_until
from bench.models import echo
from bench.workloads import MINILM_32, Workload, check_answers, make_feed, make_requests
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse

ECHO = Workload(name="echo", model="echo", size=3)


def answer(row: int, change: float = 0.0) -> bytes:
    values = make_feed(ECHO, rows=2)[echo.INPUT][row : row + 1] + np.float32(change)
    response = ModelInferResponse(raw_output_contents=[values.tobytes()])
    response.outputs.add(name="same", datatype="FP32", shape=values.shape)
    return response.SerializeToString()


def test_a_schedule_is_a_poisson_process_of_its_rate() -> None:
    times = schedule(200.0, 50.0, seed=3)
    gaps = np.diff([0.0, *times])
    assert times == sorted(times)
    assert times[-1] < 50.0
    assert len(times) == pytest.approx(10_000, rel=0.04)
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)
    assert np.mean(gaps > 1 / 200) == pytest.approx(np.exp(-1), abs=0.02)


def test_a_schedule_is_its_seed_s() -> None:
    assert schedule(10.0, 5.0, seed=1) == schedule(10.0, 5.0, seed=1)
    assert schedule(10.0, 5.0, seed=1) != schedule(10.0, 5.0, seed=2)


async def test_nothing_is_sent_before_it_is_due() -> None:
    due = time.perf_counter() + 0.0123
    await sleep_until(due)
    assert time.perf_counter() >= due
    await sleep_until(due - 1)


def test_requests_are_single_rows_of_the_feed() -> None:
    feed = make_feed(MINILM_32, rows=2)
    read = [ModelInferRequest.FromString(request) for request in make_requests(MINILM_32, feed)]
    assert [request.model_name for request in read] == ["minilm", "minilm"]
    assert all(list(tensor.shape) == [1, 32] for request in read for tensor in request.inputs)
    found = np.frombuffer(read[1].raw_input_contents[0], np.int64)
    np.testing.assert_array_equal(found, feed["input_ids"][1])


def test_answers_that_came_are_compared() -> None:
    expected = make_feed(ECHO, rows=2)[echo.INPUT]
    assert check_answers([answer(0), answer(1)], expected) == 2
    assert check_answers([b"", answer(1)], expected) == 1


@pytest.mark.parametrize("answers", [[answer(0), answer(1, 0.01)], [answer(1)], [b"", b""]])
def test_wrong_or_missing_answers_are_an_error(answers: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"differs|no answer"):
        check_answers(answers, make_feed(ECHO, rows=2)[echo.INPUT])


def test_byte_strings_come_back_from_a_file(tmp_path: Path) -> None:
    items = [b"one", b"", b"three" * 1000]
    blobs.write(tmp_path / "items", items)
    assert blobs.read(tmp_path / "items") == items
