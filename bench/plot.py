"""The open loop's picture: what came of what was offered, and how long it took."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot, ticker

Point = dict[str, float]


def draw(points: Sequence[Point], path: Path) -> None:
    """Two panels: throughput, and p50 and p99 on a logarithmic axis, over the offered load. The path's suffix chooses
    the format."""
    matplotlib.use("agg")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    offered = [point["offered"] for point in points]
    left.plot(offered, offered, color="0.7", linestyle="--", label="offered")
    left.plot(offered, [point["throughput"] for point in points], marker="o", label="answered")
    left.set(xlabel="offered load, rows/s", ylabel="throughput, rows/s", xlim=(0, None), ylim=(0, None))
    for name in ("p50", "p99"):
        right.plot(offered, [point[f"{name}_ms"] for point in points], marker="o", label=name)
    right.set(xlabel="offered load, rows/s", ylabel="latency, ms", yscale="log", xlim=(0, None))
    right.yaxis.set(
        major_locator=ticker.LogLocator(subs=(1, 2, 5)), minor_locator=ticker.NullLocator(), major_formatter="{x:g}"
    )
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
