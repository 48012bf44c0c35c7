"""The picture: how rates grow, and what a token costs."""

import importlib
from pathlib import Path
from typing import Any

from bench.scale.meter import KINDS


def draw(growth: dict[str, Any], costs: dict[str, Any], path: Path) -> None:
    """Two panels: tokens a second over workers, for each number of frontends; processor time of a token by process over
    the streams at once. The path's suffix chooses the format."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    figure, (left, right) = importlib.import_module("matplotlib.pyplot").subplots(
        1, 2, figsize=(9, 3.6), layout="constrained"
    )
    _draw_growth(left, [point for point in growth["points"] if point["load"] == "streams"])
    _draw_costs(right, [point for point in costs["points"] if point["load"] == "streams"])
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.set_axisbelow(True)
        panel.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_growth(panel: Any, points: list[dict[str, Any]]) -> None:
    engines = {point["workers"]: point["engines"] for point in points}
    panel.plot(engines.keys(), engines.values(), color="0.7", linestyle="--", label="what the engines give")
    for frontends in sorted({point["frontends"] for point in points}):
        chosen = [point for point in points if point["frontends"] == frontends]
        rates = [point["rate"] for point in chosen]
        label = f"{frontends} frontend{'s' * (frontends > 1)}"
        panel.plot([point["workers"] for point in chosen], rates, marker="o", label=label)
    panel.set(xlabel="workers", ylabel="tokens/s, all on two cores", xlim=(0, None), ylim=(0, None))


def _draw_costs(panel: Any, points: list[dict[str, Any]]) -> None:
    names = [str(point["callers"]) for point in points]
    below = [0.0] * len(points)
    for kind in KINDS:
        heights = [point["cpu_us"][kind] for point in points]
        panel.bar(names, heights, bottom=below, label=kind)
        below = [bottom + height for bottom, height in zip(below, heights, strict=True)]
    panel.set(xlabel="streams at once", ylabel="processor time of a token, µs")
