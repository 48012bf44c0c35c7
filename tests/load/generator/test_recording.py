"""What is tallied of requests, where, and what counts as good."""

import pytest

from millrace.load.arrivals import Stretch
from millrace.load.generator.recording import Recording, Request, Tally
from millrace.load.result import Metric, Stage, decode
from millrace.load.scenario import Slo

STEPS = [Stretch(begin_s=0.0, end_s=10.0, rate=5.0), Stretch(begin_s=10.0, end_s=20.0, rate=9.0)]


def stream(recording: Recording, due_s: float, *messages: tuple[float, int]) -> Request:
    """A request that is sent when it is due, with messages of so many tokens so long after that."""
    request = recording.begin(due_s)
    recording.send(request, due_s)
    for after_s, tokens in messages:
        recording.receive(request, due_s + after_s, tokens, 0)
    return request


def recorded_ms(held: Tally | Stage, metric: Metric) -> dict[int, int]:
    """How many values there are of each number of milliseconds."""
    kept = held.histograms.get(metric)
    histogram = decode(kept) if isinstance(kept, str | None) else kept
    found: dict[int, int] = {}
    for item in histogram.get_recorded_iterator():
        value = round(item.value_iterated_to / 1000)
        found[value] = found.get(value, 0) + item.count_added_in_this_iter_step
    return found


def test_latencies_count_from_when_a_request_was_due_and_not_from_when_it_was_sent() -> None:
    recording = Recording(STEPS, None)
    request = recording.begin(1.0)
    recording.send(request, 1.3)
    recording.receive(request, 1.4, 1, 0)
    recording.end(request, 1.5)
    stage = recording.stages()[0]
    assert recorded_ms(stage, "late") == {300: 1}
    assert recorded_ms(stage, "ttft") == {400: 1}
    assert recorded_ms(stage, "e2e") == {500: 1}


def test_the_gap_between_two_messages_is_divided_among_the_tokens_of_the_later_one() -> None:
    recording = Recording(STEPS, None)
    recording.end(stream(recording, 1.0, (0.1, 1), (0.2, 0), (0.5, 4)), 1.9)
    stage = recording.stages()[0]
    assert recorded_ms(stage, "itl") == {100: 4}
    assert recorded_ms(stage, "tpot") == {200: 1}
    assert stage.tokens == 5


def test_one_token_has_no_time_per_output_token() -> None:
    recording = Recording(STEPS, None)
    recording.end(stream(recording, 1.0, (0.1, 1)), 1.2)
    assert set(recording.stages()[0].histograms) == {"e2e", "ttft", "late"}


def test_what_answers_at_once_has_no_time_to_first_token() -> None:
    recording = Recording(STEPS, None, streamed=False)
    recording.end(stream(recording, 1.0, (0.1, 4)), 1.2)
    stage = recording.stages()[0]
    assert (set(stage.histograms), stage.tokens) == ({"e2e", "late"}, 4)


def test_a_request_counts_in_the_stage_in_which_it_was_due_and_is_answered_in_that_in_which_it_ended() -> None:
    recording = Recording(STEPS, None)
    recording.end(stream(recording, 9.5, (1.0, 3)), 11.0)
    first, second = recording.stages()
    assert (first.due, first.ok, first.answered, first.tokens) == (1, 1, 0, 3)
    assert (second.due, second.ok, second.answered, second.tokens) == (0, 0, 1, 0)
    assert recorded_ms(first, "e2e") == {1500: 1}
    assert second.histograms == {}


def test_the_warm_up_shows_in_intervals_and_leaves_no_latency() -> None:
    recording = Recording(STEPS, None)
    recording.end(stream(recording, -1.0, (0.1, 1), (0.2, 1)), -0.5)
    late = stream(recording, -0.2, (0.1, 1))
    warmup = recording.close(-1.0, 0.0)
    recording.end(late, 0.5)
    first = recording.close(0.0, 1.0)
    assert (warmup.tally.due, warmup.tally.ended, warmup.tally.tokens, warmup.in_flight) == (2, {"OK": 1}, 3, 1)
    assert (first.tally.due, first.tally.ended, first.in_flight) == (0, {"OK": 1}, 0)
    assert warmup.tally.histograms == first.tally.histograms == {}
    assert (recording.stages()[0].due, recording.stages()[0].answered) == (0, 1)


def test_what_drains_belongs_to_its_stage_and_to_an_interval_after_the_end() -> None:
    recording = Recording(STEPS, None)
    request = stream(recording, 19.9, (0.05, 1))
    recording.close(19.0, 20.0)
    recording.end(request, 20.4)
    assert recorded_ms(recording.close(20.0, 21.0).tally, "e2e") == {500: 1}
    last = recording.stages()[1]
    assert (last.due, last.ok, last.answered) == (1, 1, 0)


def test_failures_are_counted_by_code_and_reason_and_leave_no_end_to_end_latency() -> None:
    recording = Recording(STEPS, None)
    recording.end(stream(recording, 1.0), 1.001, "RESOURCE_EXHAUSTED", "QUEUE_FULL")
    recording.end(stream(recording, 2.0, (0.1, 1)), 3.0, "UNAVAILABLE")
    stage = recording.stages()[0]
    assert stage.ended == {"RESOURCE_EXHAUSTED": 1, "UNAVAILABLE": 1}
    assert stage.reasons == {"QUEUE_FULL": 1, "UNAVAILABLE": 1}
    assert (stage.good, stage.answered, stage.tokens) == (0, 0, 1)
    assert set(stage.histograms) == {"late", "ttft"}


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        (None, 1),
        (Slo(), 1),
        (Slo(ttft_ms=101, tpot_ms=51, e2e_ms=301), 1),
        (Slo(ttft_ms=99), 0),
        (Slo(tpot_ms=49), 0),
        (Slo(e2e_ms=299), 0),
        (Slo(ttft_ms=101, e2e_ms=299), 0),
    ],
)
def test_a_good_request_keeps_every_limit_that_is_given(slo: Slo | None, good: int) -> None:
    recording = Recording(STEPS, slo)
    recording.end(stream(recording, 1.0, (0.1, 1), (0.2, 4)), 1.3)
    assert recording.stages()[0].good == good


def test_a_request_without_tokens_has_its_first_one_no_sooner_than_its_end() -> None:
    recording = Recording(STEPS, Slo(ttft_ms=200, tpot_ms=1))
    recording.end(stream(recording, 1.0), 1.1)
    recording.end(stream(recording, 1.0), 1.3)
    assert recording.stages()[0].good == 1


def test_a_latency_beyond_what_a_histogram_holds_is_recorded_as_its_largest() -> None:
    recording = Recording([Stretch(begin_s=0.0, end_s=9_000.0, rate=1.0)], None)
    recording.end(stream(recording, 1.0), 8_000.0)
    (recorded,) = recorded_ms(recording.stages()[0], "e2e")
    assert recorded == pytest.approx(3_600_000, rel=0.001)
