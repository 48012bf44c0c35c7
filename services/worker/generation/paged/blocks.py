"""Which blocks of KV memory are taken, by how many rows, and which text each full one holds.

A block that no row refers to any more keeps its content until it is taken again, least recently used first, and can be
found until then by the hash of the text up to its end. The hash is a cryptographic one, of 128 bits: whoever could make
two texts collide would read what somebody else wrote.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ROOT = b""
"""The hash of no text."""


def chain(parent: bytes, token_ids: npt.NDArray[np.int64]) -> bytes:
    """The hash of a text that goes on after the one hashed to `parent`."""
    return hashlib.blake2b(parent + token_ids.tobytes(), digest_size=16).digest()


class BlockPool:
    """Blocks `first` to `first + count - 1`; each one is free, or referred to by at least one row."""

    def __init__(self, count: int, *, first: int = 0) -> None:
        self.count = count
        self._references = dict.fromkeys(range(first, first + count), 0)
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(self._references)
        self._hashes: dict[int, bytes] = {}
        self._blocks: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """How many blocks nobody refers to."""
        return len(self._free)

    def is_private(self, block: int) -> bool:
        """Whether the only row that refers to the block may write to it."""
        return self._references[block] == 1 and block not in self._hashes

    def take(self, count: int) -> list[int]:
        """`count` blocks, each with one reference, whose content is lost. Raises IndexError where fewer are free."""
        if count > len(self._free):
            raise IndexError(f"{count} blocks are more than the {len(self._free)} that are free")
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            if block in self._hashes:
                del self._blocks[self._hashes.pop(block)]
            self._references[block] = 1
        return taken

    def share(self, blocks: Sequence[int]) -> None:
        """One more reference to each."""
        for block in blocks:
            self._free.pop(block, None)
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """One reference less to each of a row's blocks, given in the order of its text. Of those that are free then,
        the text's end is taken again before its beginning, without which it is of no use, and what cannot be found
        before all."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None
                if block not in self._hashes:
                    self._free.move_to_end(block, last=False)

    def name(self, block: int, text: bytes) -> None:
        """From now on the block can be found by the hash of the text up to its end, and is not written to again. Of two
        blocks with the same text the first is found."""
        if text not in self._blocks:
            self._blocks[text] = block
            self._hashes[block] = text

    def find(self, text: bytes) -> int | None:
        return self._blocks.get(text)
