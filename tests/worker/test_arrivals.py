"""What comes to an engine between its steps."""

import threading
import time

from millrace.engine import Output
from services.worker.arrivals import Arrivals


def taken(arrivals: Arrivals[str]) -> tuple[list[str], list[str], list[str]]:
    """What joined, what left, and whose end came."""
    joined: list[str] = []
    left: list[str] = []
    ended = arrivals.take(joined.append, left.append)
    return joined, left, [output.lease for output in ended]


def test_what_comes_is_handed_over_in_its_order() -> None:
    arrivals = Arrivals[str]()
    arrivals.join("a", "job a")
    arrivals.end(Output(lease="b", last=True))
    arrivals.leave("c")
    assert taken(arrivals) == (["job a"], ["c"], ["b"])
    assert taken(arrivals) == ([], [], [])


def test_a_place_is_held_from_the_promise_to_the_last_of_what_was_freed() -> None:
    arrivals = Arrivals[str]()
    arrivals.promise("a", 3)
    assert len(arrivals) == 3
    arrivals.fulfil("a", "job a")
    arrivals.freed("a")
    assert len(arrivals) == 2
    arrivals.freed("a")
    arrivals.freed("a")
    arrivals.freed("a")
    assert len(arrivals) == 0


def test_who_left_before_the_promise_was_kept_never_joins() -> None:
    arrivals = Arrivals[str]()
    arrivals.promise("a", 2)
    arrivals.leave("a")
    arrivals.fulfil("a", "job a")
    assert taken(arrivals) == ([], ["a"], [])
    assert len(arrivals) == 0


def test_a_promise_that_ends_without_a_place_gives_it_back() -> None:
    arrivals = Arrivals[str]()
    arrivals.promise("a", 2)
    arrivals.end(Output(lease="a", last=True))
    assert len(arrivals) == 0
    assert taken(arrivals) == ([], [], ["a"])


def test_the_end_of_who_left_is_not_told() -> None:
    arrivals = Arrivals[str]()
    arrivals.end(Output(lease="a", last=True))
    arrivals.leave("a")
    assert taken(arrivals) == ([], ["a"], [])


def test_whoever_waits_is_woken_when_a_promise_is_kept_and_waits_for_nothing_else() -> None:
    arrivals = Arrivals[str]()
    assert not arrivals.wait(10)
    arrivals.promise("a", 1)
    began = time.monotonic()
    assert arrivals.wait(0.01)
    assert time.monotonic() - began >= 0.01
    threading.Timer(0.05, arrivals.fulfil, ("a", "job a")).start()
    assert arrivals.wait(10)
    assert time.monotonic() - began < 5
    assert taken(arrivals)[0] == ["job a"]
    assert not arrivals.wait(10)
