"""How values are written."""

from collections.abc import Mapping, Sequence

from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
BAR_CELLS = 8
WARM, HOT = 0.75, 0.9
STATES = {"ready": "green", "loading": "yellow", "draining": "yellow", "gone": "red"}


def words(text: str, style: str = "") -> Text:
    """What others say, without what would steer the terminal."""
    return Text("".join(character if character.isprintable() else "�" for character in text), style=style)


def unknown() -> Text:
    return Text("–", style="dim")


def number(value: float | None) -> Text:
    if value is None:
        return unknown()
    if 0 < value < 0.05:
        return Text("<0.1")
    if value >= 100_000:
        return Text(f"{value / 1000:,.0f}k")
    return Text(f"{value:.1f}" if 0 < value < 100 else f"{value:,.0f}")


def count(value: int | None, style: str = "") -> Text:
    return unknown() if value is None else Text(f"{value:,}", style=style if value else "")


def seconds(value: float | None) -> Text:
    if value is None:
        return unknown()
    if value < 1:
        return Text(f"{1000 * value:.1f} ms" if 0 < value < 0.01 else f"{1000 * value:.0f} ms")
    return Text(f"{value:.1f} s" if value < 100 else f"{value:,.0f} s")


def percent(share: float | None) -> Text:
    return unknown() if share is None else Text(f"{share:.0%}", style=_heat(share))


def size(value: float | None) -> Text:
    """Bytes."""
    if value is None:
        return unknown()
    for unit in ("B", "KiB", "MiB"):
        if value < 1000:
            return Text(f"{value:.0f} {unit}")
        value /= 1024
    return Text(f"{value:.1f} GiB")


def state(value: str) -> Text:
    return words(value, STATES.get(value, ""))


def memory(used: int, total: int) -> Text:
    """A bar, and the numbers."""
    if not total:
        return size(used) if used else unknown()
    share = min(used / total, 1.0)
    full = round(share * BAR_CELLS)
    bar = Text("█" * full, style=_heat(share) or "green").append("░" * (BAR_CELLS - full), style="bright_black")
    return bar.append(f" {used / 2**30:.1f}/{total / 2**30:.0f} GiB", style="default")


def sparkline(values: Sequence[float | None], cells: int) -> str:
    """The last of the values, one for each cell, from 0 to the highest of them; unknown ones are blank."""
    shown = list(values)[-cells:] if cells > 0 else []
    highest = max((value for value in shown if value is not None), default=0.0)
    return "".join(" " if value is None else BARS[_step(value, highest)] for value in shown)


def refusals(rates: Mapping[str, float]) -> Text:
    """By reason, the most frequent first."""
    ordered = sorted(rates.items(), key=lambda item: -item[1])
    return words(", ".join(f"{reason} {number(rate)}" for reason, rate in ordered))


def _step(value: float, highest: float) -> int:
    return min(int(len(BARS) * value / highest), len(BARS) - 1) if highest else 0


def _heat(share: float) -> str:
    return "red" if share >= HOT else "yellow" if share >= WARM else ""
