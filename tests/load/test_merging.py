"""Several processes' numbers add up to what one would have said."""

from typing import Any

from millrace.load.merging import Intervals, merge_stages, merge_verifications, total
from millrace.load.result import Fault, Interval, Stage, Verification, decode, encode, histogram


def encoded(*values_us: int) -> str:
    held = histogram()
    for value in values_us:
        held.record_value(value)
    return encode(held)


def interval(at_s: float, **fields: Any) -> Interval:
    return Interval(**({"at_s": at_s, "seconds": 1.0, "in_flight": 1} | fields))


def stage(begin_s: float, **fields: Any) -> Stage:
    return Stage(**({"begin_s": begin_s, "end_s": begin_s + 10, "rate": 5.0} | fields))


def test_a_second_is_whole_when_every_process_has_told_of_it() -> None:
    merging = Intervals(2)
    assert merging.add(0, interval(0.0, due=2, ended={"OK": 1})) == []
    assert merging.add(0, interval(1.0, due=5)) == []
    (first,) = merging.add(1, interval(0.0, due=3, ended={"OK": 1, "UNAVAILABLE": 2}, reasons={"DRAINING": 2}))
    assert (first.at_s, first.due, first.in_flight) == (0.0, 5, 2)
    assert first.ended == {"OK": 2, "UNAVAILABLE": 2}
    assert first.reasons == {"DRAINING": 2}


def test_a_process_that_has_drained_earlier_holds_nothing_up() -> None:
    merging = Intervals(2)
    merging.add(0, interval(0.0))
    merging.add(1, interval(0.0))
    assert merging.add(0, interval(1.0, seconds=0.3)) == []
    assert [one.at_s for one in merging.add(1, interval(1.0))] == [1.0]
    assert merging.finish(0) == []
    assert [(one.at_s, one.in_flight) for one in merging.add(1, interval(2.0))] == [(2.0, 1)]
    assert merging.finish(1) == []


def test_the_end_of_a_process_lets_seconds_go_that_waited_for_it() -> None:
    merging = Intervals(2)
    merging.add(0, interval(0.0, due=1))
    merging.add(0, interval(1.0, due=2))
    assert [one.due for one in merging.finish(1)] == [1, 2]


def test_histograms_of_several_processes_become_one() -> None:
    merged = merge_stages(
        [
            stage(0.0, histograms={"e2e": encoded(1000, 2000), "itl": encoded(7)}, due=2, answered=2),
            stage(0.0, histograms={"e2e": encoded(500, 900_000)}, due=3, answered=1),
        ]
    )
    e2e = decode(merged.histograms["e2e"])
    assert (e2e.get_total_count(), e2e.get_min_value()) == (4, 500)
    assert abs(e2e.get_max_value() - 900_000) < 900
    assert decode(merged.histograms["itl"]).get_total_count() == 1
    assert (merged.due, merged.answered, merged.rate, merged.end_s) == (5, 3, 5.0, 10.0)


def test_the_total_of_stages_has_the_rate_that_was_due() -> None:
    whole = total([stage(0.0, due=50, good=40, answered=45), stage(10.0, due=90, rate=9.0, answered=80)])
    assert (whole.begin_s, whole.end_s, whole.rate, whole.callers) == (0.0, 20.0, 7.0, None)
    assert (whole.due, whole.good, whole.answered) == (140, 40, 125)


def test_the_total_of_a_closed_loop_has_its_callers_and_no_rate() -> None:
    whole = total([stage(0.0, due=50, rate=None, callers=4)])
    assert (whole.rate, whole.callers) == (None, 4)


def test_of_many_faults_the_first_hundred_are_kept_and_all_are_counted() -> None:
    fault = Fault(job_id="a", kind="lost", detail="offset 3")
    one = Verification(streams=2, deltas=10, faults=[fault] * 80, fault_count=90)
    merged = merge_verifications([one, None, one])
    assert merged is not None
    assert (merged.streams, merged.deltas, len(merged.faults), merged.fault_count) == (4, 20, 100, 180)
    assert merge_verifications([None, None]) is None
