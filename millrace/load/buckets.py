"""Latencies' histograms as arrays, so that hundreds of them are merged and asked for their quantiles at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.load.result import decode, histogram

Array = npt.NDArray[np.floating]
Places = npt.NDArray[np.int64]
CHUNK = 256
"""Rows whose cumulative sums are held at a time, about 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A row for each histogram, a column for each bucket that any of them uses."""

    values_ms: Array
    """[buckets], rising: the highest value that each stands for, as HdrHistogram gives it."""
    counts: Array
    """[rows, buckets]"""

    def merged(self, weights: Array) -> "Stack":
        """Sums of rows, each row taken as often as `weights` [sums, rows] says."""
        return Stack(values_ms=self.values_ms, counts=np.asarray(weights, self.counts.dtype) @ self.counts)

    def totals(self) -> Array:
        """[rows]"""
        totals: Array = self.counts.sum(axis=1, dtype=np.float64)
        return totals

    def quantiles(self, shares: Sequence[float]) -> Array:
        """Milliseconds [shares, rows], NaN where a row is empty; what HdrHistogram's own search finds."""
        found = np.full((len(shares), len(self.counts)), np.nan)
        if not self.values_ms.size:
            return found
        for begin in range(0, len(self.counts), CHUNK):
            ranks = np.cumsum(self.counts[begin : begin + CHUNK], axis=1, dtype=np.float64)
            totals = ranks[:, -1:]
            for place, share in enumerate(shares):
                first = np.argmax(ranks >= np.maximum(np.floor(share * totals + 0.5), 1), axis=1)
                found[place, begin : begin + CHUNK] = np.where(totals[:, 0] > 0, self.values_ms[first], np.nan)
        return found

    def mean(self) -> Array:
        """Milliseconds [rows], NaN where a row is empty."""
        totals = self.totals()
        sums = self.counts.astype(np.float64) @ self.values_ms
        means: Array = np.divide(sums, totals, out=np.full(len(totals), np.nan), where=totals > 0)
        return means


def stack(encoded: Sequence[str | None]) -> Stack:
    """Of stored histograms, empty ones for None."""
    rows = [_sparse(one) for one in encoded]
    used = np.unique(np.concatenate([places for places, _ in rows])) if rows else np.empty(0, np.int64)
    counts = np.zeros((len(rows), len(used)), np.float32)
    for row, (places, held) in zip(counts, rows, strict=True):
        row[np.searchsorted(used, places)] = held
    return Stack(values_ms=_highest_us(used) / 1000, counts=counts)


def _sparse(encoded: str | None) -> tuple[Places, Array]:
    """Places of the buckets that are not empty, and what they hold."""
    if not encoded:
        return np.empty(0, np.int64), np.empty(0)
    counts = np.ctypeslib.as_array(decode(encoded).counts)
    places = np.flatnonzero(counts)
    return places, counts[places]


def _highest_us(places: Places) -> Places:
    """HdrHistogram's layout: 2^(m + 1) buckets of width 1, then 2^m of each width 2, 4, 8, …"""
    magnitude: int = histogram().sub_bucket_half_count_magnitude
    half = 1 << magnitude
    doublings = np.maximum((places >> magnitude) - 1, 0)
    steps = np.where(places < half, places, (places & (half - 1)) + half)
    highest: Places = ((steps + 1) << doublings) - 1
    return highest
