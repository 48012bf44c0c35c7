"""One run's tokens without padding: the decoding rows' first, one each, then the chunks'."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.worker.generation.decoder import Chunk, Lengths, TokenIds


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """`rows` [batch] are distinct; row i's new tokens are those from `cumulative[i]` to `cumulative[i + 1]`, and stand
    behind the `past[i]` positions that it holds."""

    token_ids: TokenIds
    rows: TokenIds
    past: Lengths
    cumulative: Lengths

    @property
    def longest(self) -> int:
        """The most positions that any row holds behind the run."""
        return int((self.past + np.diff(self.cumulative)).max())

    @property
    def metadata(self) -> Lengths:
        """`attention_metadata`: bounds for the new tokens of a row, for the positions that it holds behind the run, and
        from below for the most positions that any holds. They are exact."""
        return np.array([np.diff(self.cumulative).max(), self.longest, self.longest], np.int32)


def pack(token_ids: TokenIds, filled: Lengths, chunks: Sequence[Chunk]) -> Packed:
    """`token_ids` [decoding, 1] for the first rows, which hold `filled` [decoding] positions. Chunks of one row follow
    each other and are run as one."""
    decoding = len(token_ids)
    rows, past, lengths = list(range(decoding)), filled.tolist(), [1] * decoding
    for chunk in chunks:
        if rows and rows[-1] == chunk.row:
            lengths[-1] += len(chunk.token_ids)
        else:
            rows.append(chunk.row)
            past.append(chunk.start)
            lengths.append(len(chunk.token_ids))
    return Packed(
        token_ids=np.concatenate([token_ids[:, 0], *(chunk.token_ids for chunk in chunks)]),
        rows=np.array(rows, np.int64),
        past=np.array(past, np.int32),
        cumulative=np.cumsum([0, *lengths], dtype=np.int32),
    )


def select(packed: Packed, decoding: int, chunks: Sequence[Chunk]) -> Lengths:
    """Which token's logits go to each of the first rows, as an index into the packed tokens: enough rows for the
    decoding ones and the wanted chunks', and never none. A row among them that wants none gets any."""
    wanted = [chunk for chunk in chunks if chunk.wanted]
    selected = np.zeros(max([decoding, 1, *(chunk.row + 1 for chunk in wanted)]), np.int32)
    selected[:decoding] = np.arange(decoding)
    ends = dict(zip(packed.rows.tolist(), packed.cumulative[1:].tolist(), strict=True))
    for chunk in wanted:
        selected[chunk.row] = ends[chunk.row] - 1
    return selected
