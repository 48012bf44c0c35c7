"""What has measures: `count` units (examples, queries) whose figures are reckoned anew from any weights of them."""

from collections.abc import Mapping, Set
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.intp]
Array: TypeAlias = npt.NDArray[Any]


class Scorer(Protocol):
    @property
    def count(self) -> int:
        """Units."""

    @property
    def lower_is_better(self) -> Set[str]:
        """Of its measures."""

    @property
    def proportions(self) -> Set[str]:
        """Of its measures: those that are the share of units which are right."""

    def point(self) -> Mapping[str, float]:
        """The measures, by the libraries that define them."""

    def resampled(self, weights: Floats, *, costly: bool) -> Mapping[str, Floats]:
        """[resamples] of each of those measures that can be resampled, those that take long only if `costly`, from how
        often each unit was drawn, [resamples, count]. NaN where one is not defined."""


class Ratios:
    """Measures that are a sum over units divided by another: shares, means, error rates, perplexities."""

    def __init__(
        self,
        parts: Mapping[str, tuple[Array, Array]],
        point: Mapping[str, float],
        *,
        lower_is_better: Set[str] = frozenset(),
        exponential: Set[str] = frozenset(),
        proportions: Set[str] = frozenset(),
    ) -> None:
        """`parts` are what is summed above and below the line, [count] each; of those `exponential` e is raised to
        the ratio."""
        self._parts, self._point = parts, point
        self._exponential, self.lower_is_better, self.proportions = exponential, lower_is_better, proportions
        self.count = len(next(iter(parts.values()))[0])

    def point(self) -> Mapping[str, float]:
        return self._point

    def resampled(self, weights: Floats, *, costly: bool) -> Mapping[str, Floats]:
        return {name: self._ratio(name, weights) for name in self._parts}

    def _ratio(self, name: str, weights: Floats) -> Floats:
        above, below = (weights @ part for part in self._parts[name])
        ratio: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
        return np.exp(ratio) if name in self._exponential else ratio
