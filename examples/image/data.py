"""The images: scikit-learn's digits, 1,797 of 8×8 grey pixels, split by class and a fixed seed.

A fifth is held out and serves the final measures only. A tenth of the rest is for validation, which draws the curve and
decides nothing; the remainder is trained on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HELD_OUT_FRACTION = 0.2
VALIDATION_FRACTION = 0.1
SPLIT_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Labelled images: `x` [n, 1, 8, 8] has grey values 0 (paper) to 16 (ink), `label` [n] the digits."""

    x: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def pick(self, rows: npt.NDArray[np.int64]) -> "Digits":
        """The images of these rows, in their order."""
        return Digits(x=self.x[rows], label=self.label[rows])

    def save(self, path: Path) -> None:
        """Write a compressed `.npz` with the arrays `x` and `label`."""
        np.savez_compressed(path, x=self.x, label=self.label.astype(np.uint8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Three disjoint parts; each has the digits in the same proportions."""

    train: Digits
    validation: Digits
    held_out: Digits


def read_digits() -> Digits:
    """All images, in scikit-learn's order."""
    bunch = load_digits()
    return Digits(x=bunch.images[:, None].astype(np.uint8), label=bunch.target.astype(np.int64))


def split_rows(label: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
    """The rows of the training, the validation and the held-out part, the same each time."""
    rest, held_out = train_test_split(
        np.arange(len(label)), test_size=HELD_OUT_FRACTION, stratify=label, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(
        rest, test_size=VALIDATION_FRACTION, stratify=label[rest], random_state=SPLIT_SEED
    )
    return train, validation, held_out


def read_split() -> Split:
    """All images in their parts."""
    digits = read_digits()
    train, validation, held_out = (digits.pick(rows) for rows in split_rows(digits.label))
    return Split(train=train, validation=validation, held_out=held_out)
