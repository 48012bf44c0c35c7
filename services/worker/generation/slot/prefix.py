"""Prompts that begin alike: what a chunk left in the cache is kept for those who begin with the same tokens.

Only whole chunks are kept, as prefilling them left them, so that a text is the same to the last bit whether its
beginning was found here or not. A chunk is named by a hash of all tokens up to its end.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from services.worker.generation.decoder import Chunk, TokenIds
from services.worker.generation.slot.kv import Cache, Piece

DIGEST_BYTES = 16


class PrefixCache:
    """In the host's memory, at most `most_bytes`; what was not used for longest goes first. 0: nothing is kept."""

    def __init__(self, cache: Cache, *, chunk: int, most_bytes: int, rows: int) -> None:
        self._cache, self._chunk = cache, chunk
        self._most = most_bytes // (cache.position_bytes * chunk) if cache.on_host else 0
        self._pieces: OrderedDict[bytes, Piece] = OrderedDict()
        self._names: list[list[bytes]] = [[] for _ in range(rows)]
        """By row: the name of each whole chunk of its prompt."""
        self._queried = self._hit = 0

    def open(self, row: int, token_ids: TokenIds) -> int:
        """Copies what there is of these tokens into the row; answers how many positions that is: whole chunks, and
        less than all of the tokens."""
        self._names[row] = names = _names(token_ids, self._chunk) if self._most else []
        found = 0
        while found < len(names) and (found + 1) * self._chunk < len(token_ids) and names[found] in self._pieces:
            self._pieces.move_to_end(names[found])
            self._cache.write(row, found * self._chunk, self._pieces[names[found]])
            found += 1
        self._queried += len(token_ids)
        self._hit += found * self._chunk
        return found * self._chunk

    def keep(self, chunk: Chunk) -> None:
        """What has just been run."""
        index, names = chunk.start // self._chunk, self._names[chunk.row]
        whole = chunk.start % self._chunk == 0 and len(chunk.token_ids) == self._chunk
        if not whole or index >= len(names) or names[index] in self._pieces:
            return
        if len(self._pieces) >= self._most:
            self._pieces.popitem(last=False)
        self._pieces[names[index]] = self._cache.read(chunk.row, chunk.start, chunk.end)

    def move(self, source: int, target: int) -> None:
        self._names[target], self._names[source] = self._names[source], []

    def close(self, row: int) -> None:
        self._names[row] = []

    def counters(self) -> Mapping[str, float]:
        return {"prefix_cache_queried_tokens": self._queried, "prefix_cache_hit_tokens": self._hit}


def _names(token_ids: npt.NDArray[np.int64], size: int) -> list[bytes]:
    names, before = [], b""
    for end in range(size, len(token_ids) + 1, size):
        before = hashlib.blake2b(before + token_ids[end - size : end].tobytes(), digest_size=DIGEST_BYTES).digest()
        names.append(before)
    return names
