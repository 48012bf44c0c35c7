"""Where throughput stops following the load on offer."""

import math
from collections.abc import Sequence

FLAT = 1.05
"""A plateau that the highest load on offer exceeds by less than this is not told from noise."""


def knee(points: Sequence[tuple[float, float]]) -> float | None:
    """The rate c for which y = min(x, c) fits the (offered, answered) points best; None where nothing saturates.

    A service that keeps up answers what is offered, and one that does not answers what it can: the curve has no other
    parameter. The fit is that of least absolute deviations, as a run that something else disturbed weighs less in it
    than in one of least squares. Its sum is convex and piecewise linear in c, so that it is least at one of the x or
    the y, or from one to another of them: then c is in the middle.
    """
    if not points:
        return None
    sums = {rate: _deviations(points, rate) for point in points for rate in point}
    least = [rate for rate, deviations in sums.items() if math.isclose(deviations, min(sums.values()), abs_tol=1e-9)]
    best = (min(least) + max(least)) / 2
    return best if max(offered for offered, _ in points) > FLAT * best else None


def _deviations(points: Sequence[tuple[float, float]], c: float) -> float:
    return sum(abs(answered - min(offered, c)) for offered, answered in points)
