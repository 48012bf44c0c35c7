"""What goes wrong in one schedule: each draws its own mixture, so that some kinds meet each other often."""

from dataclasses import dataclass
from random import Random

LEAP = "clock leaps far"
ACCIDENTS = (
    "worker crashes",
    "worker freezes",
    "worker drains",
    "worker drains at once",
    "frontend crashes",
    "frontend freezes",
    "frontend drains",
    "reapers freeze",
    "redis away",
    "redis stalls",
    "clock leaps",
    LEAP,
    "clock runs back",
    "scripts lost",
)
MOST_ACCIDENTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Accident:
    at_s: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Probabilities are of each call, or of each message."""

    active_s: float
    """How long things go wrong; after that everything is let run to its end."""
    lost_reply: float
    """The command was carried out; the connection breaks."""
    lost_request: float
    """The connection breaks before the command arrives."""
    held_up: float
    """The connection stands still for seconds: its commands arrive late, also those that were given up long before."""
    lost_mail: float
    late_mail: float
    deaf_worker: float
    """A bell is not heard."""
    accidents: tuple[Accident, ...]


def draw_weather(rng: Random, *, may_outlive_names: bool) -> Weather:
    """`may_outlive_names`: the clock may leap so far that jobs expire while calls for them are open."""
    active_s = rng.uniform(3.0, 8.0)
    kinds = [kind for kind in ACCIDENTS if rng.random() < 0.3 and (may_outlive_names or kind != LEAP)]
    count = rng.randrange(MOST_ACCIDENTS) if kinds else 0
    accidents = [Accident(at_s=rng.uniform(0.3, active_s), kind=rng.choice(kinds)) for _ in range(count)]
    return Weather(
        active_s=active_s,
        lost_reply=_maybe(rng, 0.08),
        lost_request=_maybe(rng, 0.08),
        held_up=_maybe(rng, 0.04),
        lost_mail=_maybe(rng, 0.6),
        late_mail=_maybe(rng, 0.6),
        deaf_worker=_maybe(rng, 1.0),
        accidents=tuple(sorted(accidents, key=lambda accident: accident.at_s)),
    )


def _maybe(rng: Random, most: float) -> float:
    return rng.uniform(0.0, most) if rng.random() < 0.4 else 0.0
