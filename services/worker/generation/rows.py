"""What the device is told of each slot, as arrays, so that a step costs no work for each row before the model runs."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a sequence's tokens are drawn. temperature 0: greedy; top_k 0: the whole vocabulary."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int


class Rows:
    """Arrays over all slots; a row means something while its slot decodes. `token_ids` [slots, 1] holds the newest
    token, which is not in the cache yet; `filled` the positions that are; `position` which token of its completion is
    drawn next, from 0."""

    def __init__(self, slots: int) -> None:
        self.token_ids = np.zeros((slots, 1), np.int64)
        self.filled = np.zeros(slots, np.int32)
        self.position = np.zeros(slots, np.uint64)
        self.seed = np.zeros(slots, np.uint64)
        self.temperature = np.zeros(slots, np.float32)
        self.top_k = np.zeros(slots, np.int64)
        self.top_p = np.zeros(slots, np.float32)
        self.min_p = np.zeros(slots, np.float32)

    def place(self, slot: int, sampling: Sampling, *, filled: int, position: int) -> None:
        self.filled[slot], self.position[slot], self.seed[slot] = filled, position, sampling.seed
        self.temperature[slot], self.top_k[slot] = sampling.temperature, sampling.top_k
        self.top_p[slot], self.min_p[slot] = sampling.top_p, sampling.min_p

    def move(self, source: int, target: int) -> None:
        for column in vars(self).values():
            column[target] = column[source]
