"""What the engine asks of whatever runs the graph and owns the KV memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.worker.session import Buffer

TokenIds = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A piece of one row's text: `token_ids` [tokens] stand at positions `start`, `start + 1`, …"""

    row: int
    token_ids: TokenIds
    start: int
    wanted: bool
    """Whether the logits behind its last token are."""

    @property
    def end(self) -> int:
        return self.start + len(self.token_ids)


class Decoder(Protocol):
    """Runs the model over rows, each of which holds one sequence. Decoding rows come first, without gaps, and those
    whose last chunk is in a run follow them."""

    logits: Buffer
    """[rows, 1, vocabulary]: behind a run, in each row the logits of its newest position."""
    chunk_logits: Buffer
    """[tokens, 1, vocabulary]: behind `run_all`, the logits of each position of the chunk. As long as the longest
    chunk."""

    @property
    def memory_bytes(self) -> int:
        """Of the KV memory and the logits, on the device, allocated once."""

    @property
    def room(self) -> float:
        """For how many positions there is memory that no sequence has; infinite where each row has its own."""

    @property
    def blocks(self) -> tuple[int, int] | None:
        """How many blocks of KV memory sequences have, and how many there are; None where each row has a slot."""

    def open(self, row: int, token_ids: TokenIds) -> int:
        """A sequence begins in a row. Answers how many of its first tokens are in the row's memory already, because
        others began with them: less than all of them. No tokens: nothing is looked for, and nothing kept for others."""

    def fork(self, source: int, target: int, length: int) -> None:
        """A sequence begins in `target` with the first `length` positions of `source`."""

    def reserve(self, row: int, length: int) -> bool:
        """Makes sure that the row has memory for `length` positions; False, and nothing has changed, where there is
        none left."""

    def run(self, token_ids: TokenIds, filled: Lengths, chunks: Sequence[Chunk]) -> None:
        """One step: one token [rows, 1] for each decoding row, which holds `filled` [rows] positions before it, and the
        chunks; either may be empty. Each wanted chunk's logits land in its row. Memory has been reserved."""

    def run_all(self, chunk: Chunk) -> None:
        """One chunk alone, with the logits of each of its positions in `chunk_logits`."""

    def move(self, source: int, target: int, filled: int) -> None:
        """What `source` holds goes to `target`, which is free; then `source` is free."""

    def close(self, row: int) -> None:
        """The sequence in the row is gone."""

    def counters(self) -> Mapping[str, float]:
        """Totals since the start, by name."""
