"""What the device is told of each row, as arrays, so that a step costs no work for each row before the model runs."""

import numpy as np

from services.worker.generation.task import Sampling


class Rows:
    """Arrays over all rows; one means something while its row decodes. `token_ids` [rows, 1] holds the newest token,
    which is not in the cache yet; `filled` the positions that are; `completion` which completion of its job a row is;
    `position` which token of it is drawn next, from 0."""

    def __init__(self, rows: int) -> None:
        self.token_ids = np.zeros((rows, 1), np.int64)
        self.filled = np.zeros(rows, np.int32)
        self.completion = np.zeros(rows, np.uint64)
        self.position = np.zeros(rows, np.uint64)
        self.seed = np.zeros(rows, np.uint64)
        self.temperature = np.zeros(rows, np.float32)
        self.top_k = np.zeros(rows, np.int64)
        self.top_p = np.zeros(rows, np.float32)
        self.min_p = np.zeros(rows, np.float32)

    def place(self, row: int, sampling: Sampling, *, completion: int = 0, filled: int, position: int) -> None:
        self.filled[row], self.completion[row], self.position[row] = filled, completion, position
        self.seed[row], self.temperature[row] = sampling.seed, sampling.temperature
        self.top_k[row], self.top_p[row], self.min_p[row] = sampling.top_k, sampling.top_p, sampling.min_p

    def move(self, source: int, target: int) -> None:
        for column in vars(self).values():
            column[target] = column[source]
