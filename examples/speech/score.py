"""From scores to words, as the worker does it, and from words to the word error rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.speech.voices import DIGITS
from services.worker.tasks.ctc import Alphabet

SYMBOLS = ("<blank>", *(f"▁{digit}" for digit in DIGITS))
"""A label's, by its number; ▁ begins a word, as in SentencePiece."""
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of some sounds: words that were said, errors of each kind, and between what bounds the rate lies to 95 %."""

    sounds: int
    words: int
    substitutions: int
    deletions: int
    insertions: int
    interval: tuple[float, float]

    @property
    def wer(self) -> float:
        """The word error rate: errors over words that were said."""
        return (self.substitutions + self.deletions + self.insertions) / self.words


def transcript(scores: npt.NDArray[Any]) -> str:
    """The best path's text, of scores [frames, labels]."""
    alphabet = Alphabet(SYMBOLS, 0, "|")
    labels = alphabet.best(scores)
    return alphabet.text(alphabet.collapse(labels, 0, len(labels)).labels).strip(" ")


def score(said: Sequence[str], heard: Sequence[str]) -> Score:
    """jiwer's counts; the interval is a bootstrap's over the sounds, with a fixed seed."""
    import jiwer

    outputs = [jiwer.process_words(truth, found) for truth, found in zip(said, heard, strict=True)]
    errors = np.array([[one.substitutions, one.deletions, one.insertions] for one in outputs])
    counts = np.array([len(truth.split()) for truth in said])
    drawn = np.random.default_rng(0).integers(0, len(said), (RESAMPLES, len(said)))
    rates = errors.sum(axis=1)[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(rates, (0.025, 0.975)).tolist()
    substitutions, deletions, insertions = errors.sum(axis=0).tolist()
    return Score(
        sounds=len(said),
        words=int(counts.sum()),
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        interval=(low, high),
    )
