"""What some rows' logits get before a token is drawn from them, gathered for one step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from services.worker.generation.sampling.graph import BAN
from services.worker.generation.sampling.penalties import Penalties

NOTHING = np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32)


class Edits:
    """Biases first, then penalties, then the mask; a row has at most one of either of these."""

    def __init__(self, vocabulary_size: int) -> None:
        self._mask_bytes = -(-vocabulary_size // 8)
        self._biases: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
        self._penalties: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
        self._masks: list[tuple[int, npt.NDArray[np.uint8]]] = []

    def __bool__(self) -> bool:
        return bool(self._biases or self._penalties or self._masks)

    def bias(self, row: int, token_ids: Sequence[int], values: float | np.float32 | Sequence[float]) -> None:
        """Added to those logits."""
        biases = np.broadcast_to(np.asarray(values, np.float32), len(token_ids))
        self._biases.append((_index(row, token_ids), biases))

    def ban(self, row: int, token_ids: Sequence[int]) -> None:
        """These cannot be drawn."""
        self.bias(row, token_ids, BAN)

    def penalise(self, row: int, penalties: Penalties) -> None:
        token_ids, repetition, subtracted = penalties.edits()
        self._penalties.append((_index(row, token_ids), repetition, subtracted))

    def mask(self, row: int) -> npt.NDArray[np.uint8]:
        """A mask of zeros for a row, to be filled: bit i % 8 of byte i // 8, the lowest first, allows token i."""
        mask = np.zeros(self._mask_bytes, np.uint8)
        self._masks.append((row, mask))
        return mask

    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """As `graph` takes them."""
        bias_index, bias = map(np.concatenate, zip(*self._biases, NOTHING[:2], strict=True))
        penalty_index, repetition, subtracted = map(np.concatenate, zip(*self._penalties, NOTHING, strict=True))
        return {
            "bias_index": bias_index,
            "bias": bias,
            "penalty_index": penalty_index,
            "repetition": repetition,
            "subtracted": subtracted,
            "mask_index": np.array([[row] for row, _ in self._masks], np.int64).reshape(-1, 1),
            "mask": np.array([mask for _, mask in self._masks], np.uint8).reshape(-1, self._mask_bytes),
        }


def _index(row: int, token_ids: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    index = np.full((len(token_ids), 2), row, np.int64)
    index[:, 1] = token_ids
    return index
