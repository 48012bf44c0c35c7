"""Batches while they form: each request's rows are laid out where they will run, as soon as they come.

Requests whose padded shapes are the same share a batch. A batch of one request is that request's own memory; the second
makes it a buffer of `max_rows` rows, of which a run gets a slice.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from millrace.tensors import BYTES
from services.worker.batch.config import BatchConfig
from services.worker.batch.graph import ROWS, Array, Feed, Port, Ports
from services.worker.batch.processor import Part, Processor

Key = tuple[tuple[int, ...], ...]
"""The padded shape of each input, without its rows."""
BUFFER_BYTES = 1 << 30
"""Of the inputs of one batch: of larger rows, fewer share a run."""


@dataclass(slots=True, kw_only=True)
class Item:
    """One part of one job."""

    lease: str
    processor: Processor
    part: Part
    rest: Iterator[Part]
    """What comes after it."""
    rows: int
    rows_before: int = 0
    """Of the job's parts that ran before this one."""
    payload_bytes: int
    since: float
    """When it came, in seconds of the monotonic clock; parts of a job that follow others come when those have run."""
    aborted: bool = False

    @property
    def cost(self) -> int:
        """Of the job, with this part."""
        return self.rows_before + self.rows


class Batch:
    """Requests that run together, in the order in which they came, and their inputs."""

    def __init__(self, items: list[Item], feed: Feed) -> None:
        self.items, self.feed = items, feed

    @property
    def rows(self) -> int:
        return sum(item.rows for item in self.items)

    def wanted(self) -> frozenset[str]:
        """The outputs that any of the requests asks for; empty: all."""
        if not all(item.part.wanted for item in self.items):
            return frozenset()
        return frozenset().union(*(item.part.wanted for item in self.items))

    def halves(self) -> "list[Batch]":
        """The same requests as two batches."""
        middle = len(self.items) // 2
        row = sum(item.rows for item in self.items[:middle])
        return [
            Batch(self.items[:middle], {name: array[:row] for name, array in self.feed.items()}),
            Batch(self.items[middle:], {name: array[row:] for name, array in self.feed.items()}),
        ]


class Forming:
    """Requests of one key, row behind row, until `max_rows` have been laid out; they are run from the front."""

    def __init__(self, ports: Ports, config: BatchConfig, key: Key) -> None:
        self._ports, self._config, self.key = ports, config, key
        room = BUFFER_BYTES // max(row_bytes(ports, key), 1)
        self._max_rows = max(min(config.max_rows, room), 1) if ports.batched else 1
        self._items: list[Item] = []
        self._buffers: Feed = {}
        self._start = self._end = 0
        """Of the rows that wait."""

    @property
    def since(self) -> float:
        """When the first of those that wait came."""
        return self._items[0].since

    @property
    def rows(self) -> int:
        """How many wait."""
        return self._end - self._start

    @property
    def full(self) -> bool:
        return self._end >= self._max_rows

    def has_room_for(self, item: Item) -> bool:
        return self._end + item.rows <= self._max_rows and (self._ports.batched or not self._items)

    def append(self, item: Item) -> None:
        self._max_rows = max(self._max_rows, item.rows) if self._ports.batched else 1
        if self._items and not self._buffers:
            self._lay_out(self._items[0], 0)
        if self._end or not self._fits_as_it_is(item):
            self._lay_out(item, self._end)
        self._items.append(item)
        self._end += item.rows

    def take(self, rows: int) -> Batch | None:
        """The first requests, of at most so many rows, but one at least; None where all of them were aborted."""
        count = size = 0
        while count < len(self._items) and (not count or size + self._items[count].rows <= rows):
            size += self._items[count].rows
            count += 1
        taken, self._items = self._items[:count], self._items[count:]
        feed = self._feed(taken, size)
        self._start += size
        if any(item.aborted for item in taken):
            keep = np.repeat([not item.aborted for item in taken], [item.rows for item in taken])
            if not keep.any():
                return None
            feed = {name: array[keep] for name, array in feed.items()}
        return Batch([item for item in taken if not item.aborted], feed)

    def _feed(self, taken: list[Item], rows: int) -> Feed:
        if not self._buffers:
            return taken[0].part.feed
        if not self._ports.batched:
            return self._buffers
        return {name: buffer[self._start : self._start + rows] for name, buffer in self._buffers.items()}

    def _fits_as_it_is(self, item: Item) -> bool:
        return all(item.part.feed[port.name].shape == self._shape(index, item.rows) for index, port in self._inputs())

    def _lay_out(self, item: Item, row: int) -> None:
        """Copies a request's rows behind the others', the padding around them."""
        for index, port in self._inputs():
            if port.name not in self._buffers:
                rows = self._max_rows if self._ports.batched else item.rows
                self._buffers[port.name] = np.empty(self._shape(index, rows), port.dtype)
            array = item.part.feed[port.name]
            target = (
                self._buffers[port.name][row : row + item.rows] if self._ports.batched else self._buffers[port.name]
            )
            if target.shape != array.shape:
                target[...] = _padding(port, self._config.padding)
            target[tuple(slice(size) for size in array.shape)] = array

    def _shape(self, index: int, rows: int) -> tuple[int, ...]:
        return (rows, *self.key[index]) if self._ports.batched else self.key[index]

    def _inputs(self) -> enumerate[Port]:
        return enumerate(self._ports.inputs)


def key_of(ports: Ports, config: BatchConfig, item: Item) -> Key:
    """Where a request belongs: its inputs' shapes, padded."""
    return tuple(
        tuple(
            config.padded(dim, size) if isinstance(dim, str) else size
            for dim, size in zip(port.dims, item.part.feed[port.name].shape, strict=True)
            if dim != ROWS
        )
        for port in ports.inputs
    )


def row_bytes(ports: Ports, key: Key) -> int:
    """What one row of these padded shapes takes, or all of them where rows are not batched."""
    return sum(math.prod(shape) * port.dtype.itemsize for port, shape in zip(ports.inputs, key, strict=True))


def cut(port: Port, array: Array, item: Item, row: int, ports: Ports) -> Array:
    """A request's own part of an output: its rows, without what padding added to dimensions named as an input's."""
    own = tuple(slice(item.part.sizes.get(dim) if isinstance(dim, str) else None) for dim in port.dims)
    if ports.batched:
        own = (slice(row, row + item.rows), *own[1:])
    return array[own]


def check_padding(ports: Ports, padding: Mapping[str, Any]) -> None:
    """Raises ValueError where an input cannot hold what it is to be padded with."""
    for port in ports.inputs:
        value = _padding(port, padding)
        try:
            if port.datatype == BYTES and not isinstance(value, str):
                raise TypeError(f"a text is needed, not {value}")
            with np.errstate(over="raise", invalid="raise"):
                np.full(1, value, port.dtype)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f"batching.padding.{port.name}: {error}") from None


def _padding(port: Port, padding: Mapping[str, Any]) -> Any:
    return padding.get(port.name, "" if port.datatype == BYTES else 0)
