"""Adding up what several processes saw."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from millrace.load.result import Counts, Interval, Metric, Stage, Verification, decode, encode

Encoded = Mapping[Metric, str]
MOST_FAULTS = 100


def merge_histograms(given: Sequence[Encoded]) -> dict[Metric, str]:
    """One of each metric that any of them has."""
    merged: dict[Metric, str] = {}
    for metric in dict.fromkeys(metric for one in given for metric in one):
        held = [one[metric] for one in given if metric in one]
        merged[metric] = held[0] if len(held) == 1 else _add(held)
    return merged


def merge_intervals(given: Sequence[Interval]) -> Interval:
    """Of the same second."""
    return Interval(
        at_s=given[0].at_s,
        seconds=max(one.seconds for one in given),
        in_flight=sum(one.in_flight for one in given),
        histograms=merge_histograms([one.histograms for one in given]),
        **_add_counts(given),
    )


def merge_stages(given: Sequence[Stage]) -> Stage:
    """Of the same stretch."""
    first = given[0]
    return _stage(given, begin_s=first.begin_s, end_s=first.end_s, rate=first.rate, callers=first.callers)


def total(stages: Sequence[Stage]) -> Stage:
    """All of the stages as one, whose rate is what was due on average."""
    begin_s, end_s, callers = stages[0].begin_s, stages[-1].end_s, stages[0].callers
    rate = None if callers is not None else sum(one.due for one in stages) / (end_s - begin_s)
    return _stage(stages, begin_s=begin_s, end_s=end_s, rate=rate, callers=callers)


def merge_verifications(given: Sequence[Verification | None]) -> Verification | None:
    """None where nothing was verified."""
    held = [one for one in given if one is not None]
    if not held:
        return None
    return Verification(
        streams=sum(one.streams for one in held),
        deltas=sum(one.deltas for one in held),
        faults=[fault for one in held for fault in one.faults][:MOST_FAULTS],
        fault_count=sum(one.fault_count for one in held),
    )


class Intervals:
    """Those of several processes, merged second by second. Each process gives the same seconds in the same order, and
    stops where its last request has ended."""

    def __init__(self, processes: int) -> None:
        self._given: dict[int, deque[Interval]] = {one: deque() for one in range(processes)}
        self._running = set(range(processes))

    def add(self, process: int, interval: Interval) -> list[Interval]:
        """The seconds that are whole now."""
        self._given[process].append(interval)
        return self._take()

    def finish(self, process: int) -> list[Interval]:
        """The process gives no more; the seconds that are whole now."""
        self._running.discard(process)
        return self._take()

    def _take(self) -> list[Interval]:
        whole = []
        while any(self._given.values()) and all(self._given[one] for one in self._running):
            whole.append(merge_intervals([given.popleft() for given in self._given.values() if given]))
        return whole


def _stage(given: Sequence[Stage], **fields: Any) -> Stage:
    return Stage(
        answered=sum(one.answered for one in given),
        histograms=merge_histograms([one.histograms for one in given]),
        **fields,
        **_add_counts(given),
    )


def _add_counts(given: Sequence[Counts]) -> dict[str, Any]:
    """The fields of `Counts`."""
    names = ("due", "good", "tokens", "prompt_tokens")
    summed: dict[str, Any] = {name: sum(getattr(one, name) for one in given) for name in names}
    for name in ("ended", "reasons"):
        summed[name] = sum((Counter(getattr(one, name)) for one in given), Counter[str]())
    return summed


def _add(encoded: Sequence[str]) -> str:
    held = decode(encoded[0])
    for one in encoded[1:]:
        held.add(decode(one))
    return encode(held)
