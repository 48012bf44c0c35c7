"""The baseline: an interpolated trigram over the same tokens, smoothed as Witten and Bell (1991) do.

    P3(w | u v) = λ(u v) · c(u v w) / c(u v) + (1 - λ(u v)) · P2(w | v)      λ(h) = c(h) / (c(h) + a · t(h))

where t(h) is the number of different tokens seen behind h; P2 falls back to P1 in the same way, and P1 to the uniform
distribution. The one free number, a, is fitted on a slice of the training half, never on the held-out files.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from examples.text.tokenizer import Tokens

Counts = npt.NDArray[np.float64]
BACK_OFFS = (0.5, 1.0, 2.0, 3.0, 5.0)
FITTING_FRACTION = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """Counts of n-grams. Each n-gram and each history is one number in base `vocabulary`, sorted, to be bisected."""

    grams: Tokens
    gram_counts: Counts
    histories: Tokens
    history_counts: Counts
    followers: Counts

    def mix(self, history: Tokens, token: Tokens, vocabulary: int, lower: Counts, back_off: float) -> Counts:
        """Interpolate the estimates of the next lower order; all arrays are [n]."""
        seen = _look_up(self.grams, self.gram_counts, history * vocabulary + token)
        total = _look_up(self.histories, self.history_counts, history)
        reserve = back_off * _look_up(self.histories, self.followers, history)
        denominator = total + reserve
        known = denominator > 0
        return np.where(known, (seen + reserve * lower) / np.where(known, denominator, 1.0), lower)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigram:
    """A distribution over the next token, given two."""

    vocabulary: int
    back_off: float
    orders: tuple[_Order, _Order, _Order]

    def probabilities(self, first: Tokens, second: Tokens, token: Tokens) -> Counts:
        """P(token | first second), elementwise over arrays [n]."""
        uniform = np.full(len(token), 1.0 / self.vocabulary)
        histories = (np.zeros_like(token), second, first * self.vocabulary + second)
        estimate = uniform
        for order, history in zip(self.orders, histories, strict=True):
            estimate = order.mix(history, token, self.vocabulary, estimate, self.back_off)
        return estimate

    def nats(self, stream: Tokens) -> Counts:
        """-ln P of every token of a stream but the first, [len - 1]; a separator is taken to stand before the first."""
        padded = np.concatenate([np.zeros(1, np.int64), stream])
        return -np.log(self.probabilities(padded[:-2], padded[1:-1], padded[2:]))


def fit(stream: Tokens, vocabulary: int) -> Trigram:
    """Count all of `stream`, with the back-off weight that is best for its last part when only the rest is counted."""
    border = int(len(stream) * (1 - FITTING_FRACTION))
    trial = _counted(stream[:border], vocabulary)

    def cost(back_off: float) -> float:
        return float(Trigram(vocabulary=vocabulary, back_off=back_off, orders=trial).nats(stream[border:]).sum())

    best = min(BACK_OFFS, key=cost)
    return Trigram(vocabulary=vocabulary, back_off=best, orders=_counted(stream, vocabulary))


def _counted(stream: Tokens, vocabulary: int) -> tuple[_Order, _Order, _Order]:
    two = stream[:-1] * vocabulary + stream[1:]
    three = two[:-1] * vocabulary + stream[2:]
    return _order(stream, vocabulary), _order(two, vocabulary), _order(three, vocabulary)


def _order(grams: Tokens, vocabulary: int) -> _Order:
    distinct, counts = np.unique(grams, return_counts=True)
    histories, inverse = np.unique(distinct // vocabulary, return_inverse=True)
    return _Order(
        grams=distinct,
        gram_counts=counts.astype(np.float64),
        histories=histories,
        history_counts=np.bincount(inverse, weights=counts).astype(np.float64),
        followers=np.bincount(inverse).astype(np.float64),
    )


def _look_up(keys: Tokens, values: Counts, wanted: Tokens) -> Counts:
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0.0)
