"""The block table: where each row's text lies in KV memory."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from services.worker.generation.paged.blocks import ROOT, BlockPool, chain

NOBODYS = 0
"""The block that no row has: where entries point that mean nothing."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What is in one block has to be in another too, before the next run."""

    source: int
    target: int


@dataclass(slots=True, eq=False)
class _Row:
    """What lies where."""

    blocks: list[int] = field(default_factory=list)
    ready: int = 0
    """Up to which position it may write."""
    texts: list[bytes] = field(default_factory=list)
    """For each of its first blocks, those that have been offered to others, the hash of the text up to its end."""
    is_kept: bool = False
    """Whether its blocks are for others to find."""


class BlockTable:
    """Rows of up to `length` positions over a pool of blocks of `block_size`.

    `entries` [rows, blocks] is what the graph reads. A row writes only to blocks that no other row has and nobody can
    find: blocks become findable when they are full and can no longer change, and the block in which forked rows part is
    copied when one of them is about to go on.
    """

    def __init__(self, rows: int, length: int, *, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.width = -(-length // block_size)
        self.entries = np.full((rows, self.width), NOBODYS, np.int32)
        self.pool = BlockPool(blocks, first=NOBODYS + 1)
        self.queried_tokens = 0
        self.hit_tokens = 0
        self._rows = [_Row() for _ in range(rows)]
        self._final = np.zeros(rows, np.int64)
        self._filled = np.zeros(rows, np.int64)
        self._token_ids = np.zeros((rows, self.width * block_size), np.int64)

    def open(self, row: int, token_ids: npt.NDArray[np.int64]) -> int:
        """Takes the blocks that hold the text's beginning already, at most all but its last token, and answers for how
        many tokens. No tokens: the text is not looked for and not kept for others."""
        self.close(row)
        opened, found = self._rows[row], list[int]()
        opened.is_kept = len(token_ids) > 0
        for end in range(self.block_size, len(token_ids), self.block_size):
            text = chain(opened.texts[-1] if opened.texts else ROOT, token_ids[end - self.block_size : end])
            block = self.pool.find(text)
            if block is None:
                break
            found.append(block)
            opened.texts.append(text)
        self.pool.share(found)
        self._append(row, found)
        hit = len(found) * self.block_size
        self._fill(row, 0, token_ids[:hit], final=hit)
        self.queried_tokens += len(token_ids)
        self.hit_tokens += hit
        return hit

    def fork(self, source: int, target: int, length: int) -> None:
        """The target begins with the source's first `length` positions, in the same blocks."""
        self.close(target)
        old, new = self._rows[source], self._rows[target]
        shared = old.blocks[: -(-length // self.block_size)]
        self.pool.share(shared)
        self._append(target, shared)
        self._fill(target, 0, self._token_ids[source, :length], final=length)
        self._final[source] = max(self._final[source], length)
        new.texts, new.is_kept = old.texts[: length // self.block_size], old.is_kept
        old.ready = 0

    def reserve(self, row: int, length: int) -> list[Copy] | None:
        """Makes positions up to `length` writable, from the last final one on; answers what must be copied for that, or
        None, and nothing has changed, where too few blocks are free or a row is not so long."""
        reserved = self._rows[row]
        if length <= reserved.ready:
            return []
        needed = -(-length // self.block_size)
        missing = max(needed - len(reserved.blocks), 0)
        last, offset = divmod(int(self._final[row]), self.block_size)
        parts = offset > 0 and not self.pool.is_private(reserved.blocks[last])
        if missing + parts > self.pool.free or needed > self.width:
            return None
        copies = [self._part(row, last)] if parts else []
        self._append(row, self.pool.take(missing))
        reserved.ready = len(reserved.blocks) * self.block_size
        return copies

    def wrote(self, row: int, start: int, token_ids: npt.NDArray[np.int64], *, is_final: bool = True) -> None:
        """A run has put these tokens at positions `start` on. What is before them is final, which means that it will
        not be written over; whether they are is `is_final`."""
        self._name(row, start)
        end = start + len(token_ids)
        self._fill(row, start, token_ids, final=end if is_final else start)
        if is_final:
            self._name(row, end)

    def wrote_each(self, filled: npt.NDArray[np.int32], token_ids: npt.NDArray[np.int64]) -> None:
        """A run has put one final token [rows] into each of the first rows, at positions `filled` [rows]."""
        rows = np.arange(len(filled))
        self._token_ids[rows, filled] = token_ids
        self._filled[rows] = self._final[rows] = ends = filled + 1
        for row in np.flatnonzero(ends % self.block_size == 0).tolist():
            self._name(row, int(ends[row]))

    def move(self, source: int, target: int) -> None:
        """The source's text goes to the target, whose own is gone; the source is empty then."""
        self.close(target)
        filled, final = int(self._filled[source]), int(self._final[source])
        self._fill(target, 0, self._token_ids[source, :filled], final=final)
        self._rows[target], self._rows[source] = self._rows[source], _Row()
        self.entries[target] = self.entries[source]
        self.close(source)

    def close(self, row: int) -> None:
        self.pool.release(self._rows[row].blocks)
        self._rows[row] = _Row()
        self._filled[row] = self._final[row] = 0
        self.entries[row] = NOBODYS

    def blocks(self, row: int) -> tuple[int, ...]:
        """Those of a row, in the order of its text."""
        return tuple(self._rows[row].blocks)

    def _fill(self, row: int, start: int, token_ids: npt.NDArray[np.int64], *, final: int) -> None:
        self._filled[row] = end = start + len(token_ids)
        self._token_ids[row, start:end] = token_ids
        self._final[row] = final

    def _append(self, row: int, blocks: list[int]) -> None:
        own = self._rows[row].blocks
        self.entries[row, len(own) : len(own) + len(blocks)] = blocks
        own.extend(blocks)

    def _part(self, row: int, index: int) -> Copy:
        """Gives the row a block of its own in the place of a shared one."""
        own = self._rows[row].blocks
        copy = Copy(own[index], *self.pool.take(1))
        self.pool.release([copy.source])
        own[index] = self.entries[row, index] = copy.target
        return copy

    def _name(self, row: int, end: int) -> None:
        """Offers the row's full blocks up to position `end` to others."""
        named = self._rows[row]
        while named.is_kept and (stop := (len(named.texts) + 1) * self.block_size) <= end:
            token_ids = self._token_ids[row, stop - self.block_size : stop]
            text = chain(named.texts[-1] if named.texts else ROOT, token_ids)
            self.pool.name(named.blocks[len(named.texts)], text)
            named.texts.append(text)
