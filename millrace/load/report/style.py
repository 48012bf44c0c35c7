"""How the figures look. Colours are written as stand-ins, which the finished SVG has replaced by the page's own CSS
variables, so that one file is readable by day and by night; texts stay texts, in the page's font.

Hues are after Okabe and Ito, "Color Universal Design", 2008: told apart by readers who are colour-blind, too.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

ROLES = (
    *("ink", "muted", "grid", "surface", "shade"),
    *("e2e", "ttft", "tpot", "itl", "low", "middle", "high"),
    *("offered", "answered", "good", "limit", "mark", "waiting", "running"),
    *("error-1", "error-2", "error-3", "error-4", "error-5", "error-6"),
)
C = {role: f"#0a0b{place:02x}" for place, role in enumerate(ROLES)}
"""Role: its stand-in. The page gives each a value for light and one for dark."""
ERRORS = [C[role] for role in ROLES if role.startswith("error-")]
SIZE = (6.2, 3.5)
NOTHING = "–"
RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": C["grid"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": C["muted"],
    "axes.labelsize": 9,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 9,
    "grid.color": C["grid"],
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": C["ink"],
    "text.parse_math": False,
    "xtick.bottom": True,
    "xtick.color": C["grid"],
    "xtick.labelcolor": C["muted"],
    "xtick.minor.visible": False,
    "ytick.color": C["grid"],
    "ytick.labelcolor": C["muted"],
    "ytick.left": False,
    "ytick.minor.left": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """Figures that are made and written inside look as said above."""
    with matplotlib.rc_context(RC):
        yield


def figure() -> Figure:
    """Margins are the same in all, so that figures over time can be read one below the other."""
    drawn = Figure(figsize=SIZE)
    drawn.subplots_adjust(left=0.12, right=0.86, bottom=0.13, top=0.94, hspace=0.16)
    return drawn


def svg(drawn: Figure, name: str) -> str:
    """The element alone, the same for the same figure and name. `name` keeps its ids apart from other figures'."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        drawn.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
    text = re.sub(r'<g id="[\w.]+_\d+">', "<g>", text)
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg role="img" aria-label="{name}" \1>', text, count=1)
    text = re.sub(r"xlink:href", "href", text)
    return re.sub(r"#0a0b(..)", lambda found: f"var(--{ROLES[int(found[1], 16)]})", text).strip()


def logarithmic(axes: Axes, lowest: float, highest: float, unit: str = "ms") -> None:
    """A logarithmic y axis over these values, with a label at 1, 2 and 5 of each decade where there is room."""
    lowest, highest = lowest / 1.3, max(highest * 1.5, lowest * 4)
    subs = (1.0,) if highest / lowest > 3000 else (1.0, 2.0, 5.0)
    axes.set_yscale("log")
    axes.set_ylim(lowest, highest)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=30))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_ylabel(unit)


def from_zero(axes: Axes, unit: str) -> None:
    """A linear y axis from 0, with room above."""
    axes.set_ylim(0, max(axes.get_ylim()[1] * 1.05, 1e-9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_ylabel(unit)


def name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names lines at their right ends, (y, text, colour), moved apart where they would overlap."""
    places = _apart(
        [float(axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1]) for y, _, _ in ends]
    )
    for place, (_, text, colour) in zip(places, ends, strict=True):
        axes.annotate(
            text,
            xy=(1, place),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontweight="bold",
        )


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, more before the point; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def limit(axes: Axes, value: float, text: str) -> None:
    """A dashed line across, with its name above it."""
    axes.axhline(value, color=C["limit"], linestyle=(0, (4, 3)), linewidth=1.1)
    where = blended_transform_factory(axes.transAxes, axes.transData)
    axes.annotate(
        text,
        xy=(0.12, value),
        xycoords=where,
        xytext=(0, 2),
        textcoords="offset points",
        color=C["limit"],
        fontsize=8,
        va="bottom",
    )


def _apart(wanted: Sequence[float], least: float = 0.075) -> list[float]:
    """The same places in the same order, each at least so far from the next, within 0 and 1 while there is room."""
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    placed = [min(max(wanted[place], 0.0), 1.0) for place in order]
    for place in range(1, len(placed)):
        placed[place] = max(placed[place], placed[place - 1] + least)
    top = 1.0
    for place in range(len(placed) - 1, -1, -1):
        placed[place] = min(placed[place], top)
        top = placed[place] - least
    return [y for _, y in sorted(zip(order, placed, strict=True))]
