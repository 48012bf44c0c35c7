"""Who stands in which slot of the KV cache.

Decoding sequences occupy the first slots, so that a decode step binds a prefix of the cache; behind them stand those
that prefill, oldest first, and only the first of these may have begun. A leaving sequence is replaced by the last
decoding one, that one by the first prefilling one, and those behind it close up.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Move:
    """What stands in slot `source` goes to slot `target`, which is free by then."""

    source: int
    target: int


def moves_after_leaving(slot: int, *, decoding: int, occupied: int) -> list[Move]:
    """The moves, in order, after the sequence in `slot` has left a table of `occupied` slots, `decoding` of which
    decode. Behind them the first `occupied - 1` slots are occupied, and again the decoding ones come first."""
    if slot >= decoding:
        return [Move(source, source - 1) for source in range(slot + 1, occupied)]
    filling = [Move(decoding - 1, slot)] if slot != decoding - 1 else []
    return filling + [Move(source, source - 1) for source in range(decoding, occupied)]


class SlotTable(Generic[T]):
    """Sequences by slot: `occupants[:decoding]` decode, the rest prefill or wait for it. The table may be longer than
    the cache: those beyond its end have nothing in it yet."""

    def __init__(self) -> None:
        self.occupants: list[T] = []
        self.decoding = 0

    def __len__(self) -> int:
        return len(self.occupants)

    def join(self, occupant: T) -> None:
        """Appends it behind all others, to prefill."""
        self.occupants.append(occupant)

    def row(self, occupant: T) -> int:
        """Where it stands."""
        return self.occupants.index(occupant)

    def promote(self, count: int) -> None:
        """The first `count` prefilling ones decode from now on, where they stand."""
        self.decoding += count

    def leave(self, occupant: T) -> list[Move]:
        """Takes it out and closes the gap; the answer says what to do to the cache."""
        slot = self.occupants.index(occupant)
        moves = moves_after_leaving(slot, decoding=self.decoding, occupied=len(self.occupants))
        for move in moves:
            self.occupants[move.target] = self.occupants[move.source]
        self.occupants.pop()
        self.decoding -= slot < self.decoding
        return moves
