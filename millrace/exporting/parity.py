"""How far a graph is from its original, and whether that is near enough.

A difference is measured in units of its output: the largest |graph − original| over the largest |original| of that
output in the same run. Where an output is compared by its best value too, and where it holds no floats, the share of
equal choices is told.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.exporting.order import Precision

Array = npt.NDArray[np.generic]
Tensors = Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is published."""

    difference: float
    """At most, in units of the output."""
    agreement: float
    """Share of equal choices, at least."""


LIMITS = {
    Precision.FP32: Limits(difference=1e-4, agreement=0.99),
    Precision.FP16: Limits(difference=1e-2, agreement=0.95),
    Precision.INT8: Limits(difference=0.2, agreement=0.8),
    Precision.INT4: Limits(difference=1.0, agreement=0.3),
}


def limits(precision: Precision, tolerance: float | None) -> Limits:
    """Those of the precision; a tolerance that is given replaces the difference."""
    usual = LIMITS[precision]
    return usual if tolerance is None else Limits(difference=tolerance, agreement=usual.agreement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One output of one run."""

    given: str
    """What the run was given, for people: "3 × 17"."""
    output: str
    absolute: float = 0.0
    """The largest difference of any value."""
    relative: float = 0.0
    """The same, in units of the output."""
    agreement: float | None = None
    """Share of equal choices: of values that are no floats, or of the best along the last axis."""
    choices: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """All that was compared. `unchecked`: why nothing could be. `note`: what it was, where not the graph itself."""

    limits: Limits
    comparisons: Sequence[Comparison] = ()
    unchecked: str = ""
    note: str = ""

    @property
    def absolute(self) -> float:
        return max((one.absolute for one in self.comparisons), default=0.0)

    @property
    def relative(self) -> float:
        return max((one.relative for one in self.comparisons), default=0.0)

    @property
    def agreement(self) -> float | None:
        """Over all choices; None where there were none."""
        shares = [(one.agreement, one.choices) for one in self.comparisons if one.agreement is not None]
        choices = sum(count for _, count in shares)
        return sum(share * count for share, count in shares) / choices if choices else None

    @property
    def problem(self) -> str | None:
        """Why it is not near enough; None where it is, or where nobody can tell."""
        if not self.comparisons:
            return None if self.unchecked else "nothing was compared"
        worst = max(self.comparisons, key=lambda one: one.relative)
        if not worst.relative <= self.limits.difference:
            return (
                f"{worst.output} differs by {worst.relative:.1e} of its largest value ({worst.given}), "
                f"and {self.limits.difference:g} is the most"
            )
        if self.agreement is not None and self.agreement < self.limits.agreement:
            return (
                f"{self.agreement:.1%} of the choices are the original's, and {self.limits.agreement:.0%} are the least"
            )
        return None


def compare(given: str, expected: Tensors, found: Tensors, best: bool = False) -> Iterator[Comparison]:
    """`best`: whether choices along the last axis of floats are compared too. Raises ValueError where an output is
    missing or has another shape."""
    for output, original in expected.items():
        if output not in found:
            raise ValueError(f"the graph has no output {output}: it has {', '.join(found)}")
        ours = found[output]
        if ours.shape != original.shape:
            raise ValueError(
                f"the graph's {output} has the shape {list(ours.shape)}, and the original's {list(original.shape)} "
                f"({given}): some size of the example was taken for a constant; mark that dimension as dynamic"
            )
        yield _compare(given, output, original, ours, best)


def _compare(given: str, output: str, original: Array, ours: Array, best: bool) -> Comparison:
    if original.dtype.kind not in "fV" or not original.size:
        same = float(np.mean(original.astype(str) == ours.astype(str))) if original.size else 1.0
        return Comparison(given=given, output=output, agreement=same, choices=original.size)
    absolute, relative = _difference(original.astype(np.float64), ours.astype(np.float64))
    chosen = _chosen(original, ours) if best and original.ndim and original.shape[-1] > 1 else None
    return Comparison(
        given=given,
        output=output,
        absolute=absolute,
        relative=relative,
        agreement=None if chosen is None else float(chosen.mean()),
        choices=0 if chosen is None else chosen.size,
    )


def _difference(original: npt.NDArray[np.float64], ours: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Absolute and relative; infinite where one has a number and the other has none."""
    numbers = np.isfinite(original)
    if not (numbers == np.isfinite(ours)).all():
        return float("inf"), float("inf")
    absolute = float(np.abs(original - ours, where=numbers, out=np.zeros_like(original)).max(initial=0.0))
    largest = float(np.abs(original, where=numbers, out=np.zeros_like(original)).max(initial=0.0))
    return absolute, absolute / largest if largest else absolute


def _chosen(original: Array, ours: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(original.argmax(axis=-1) == ours.argmax(axis=-1))
