"""A load test in words and figures, for a screen."""

from collections.abc import Sequence

from rich.text import Text

from millrace.load.scenario import Arrivals, Scenario

BARS = "▁▂▃▄▅▆▇█"


def heading(scenario: Scenario) -> Text:
    what = f"  {scenario.model} at {scenario.address}  "
    return Text.assemble((scenario.name, "bold"), what, (arrivals(scenario.arrivals), "cyan"))


def arrivals(given: Arrivals) -> str:
    """In words."""
    if given.ramp:
        return f"from {given.ramp.start:g} to {given.ramp.end:g} requests/s"
    if given.steps:
        return f"{', '.join(f'{rate:g}' for rate in given.steps.rates)} requests/s"
    if given.trace:
        return f"as in {given.trace.name}"
    if given.callers:
        return f"{given.callers} callers"
    return f"{given.poisson or given.constant:g} requests/s, {'Poisson' if given.poisson else 'evenly'}"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def figure(number: float) -> str:
    """Three digits, or all before the point: 0.12, 1.23, 12.3, 1,234."""
    places = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:,.{places}f}"


def sparkline(numbers: Sequence[float], width: int) -> str:
    """The last `width` of them as bars, between zero and the greatest of these."""
    shown = numbers[-width:]
    top = max(shown, default=0.0)
    if top == 0:
        return BARS[0] * len(shown)
    return "".join(BARS[min(int(len(BARS) * number / top), len(BARS) - 1)] for number in shown)
