"""What a run has measured so far, as JSON and as a picture."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True, kw_only=True)
class History:
    """`seconds` counts training only and adds up over resumed runs, as `amount` does, in the task's unit. `losses` has
    every step's; `curve` what was validated: {"step": …, "loss": …, and the task's measures}."""

    steps: int = 0
    seconds: float = 0.0
    amount: float = 0.0
    losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Amount a second."""
        return self.amount / self.seconds if self.seconds else 0.0


def save(history: History, recipe: dict[str, Any], path: Path) -> None:
    """Write both as one record."""
    path.write_text(json.dumps({"recipe": recipe, **asdict(history)}, indent=1))


def draw(history: History, measures: dict[str, str], path: Path) -> None:
    """A PNG of two panels: the losses, and of the curve each of `measures`, whose axis gets that name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(range(1, history.steps + 1), history.losses, color="#bbbbbb", linewidth=0.7, label="each step")
    steps = [point["step"] for point in history.curve]
    if "validation_loss" in (history.curve or [{}])[0]:
        left.plot(steps, [point["validation_loss"] for point in history.curve], color="#0072b2", label="validation")
    left.set(xlabel="step", ylabel="loss", yscale="log")
    left.legend(frameon=False)
    for key, name in measures.items():
        right.plot(steps, [point[key] for point in history.curve], color="#d55e00", marker="o", markersize=3)
        right.set(xlabel="step", ylabel=name, ylim=(0, None))
    for axes in (left, right):
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
