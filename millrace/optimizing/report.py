"""The table of an optimisation: in a terminal, in the card, as JSON."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from millrace.exporting.room import told
from millrace.optimizing.candidate import Candidate, Choice
from millrace.optimizing.measuring.job import Judgement
from millrace.optimizing.order import Prefer

NONE = "–"


def columns(original: Candidate) -> list[str]:
    judged, unit = original.judgement, original.rounds[0].unit
    metric = judged.metric.value if judged is not None and judged.metric is not None else "metric"
    return ["", "size", "p50", "p99", f"{unit}/s", "at rows", "memory", "difference", metric, "loss", ""]


def cells(one: Candidate, original: Candidate, choice: Choice) -> list[str]:
    """One row, as many as there are columns."""
    verdict = "" if one.method is None else choice.verdicts[one.method]
    if not one.is_measured or one.judgement is None:
        return [one.name, told(one.size_bytes) if one.size_bytes else NONE, *[NONE] * 8, verdict]
    loss = NONE if one.method is None else f"{one.loss(original):+.2%}"
    return [
        one.name,
        told(one.size_bytes),
        f"{median(one.values(Prefer.LATENCY)):.3g} ms {_spread(one.values(Prefer.LATENCY))}",
        f"{median(found.p99_ms for found in one.rounds):.3g} ms",
        f"{median(one.values(Prefer.SPEED)):,.0f} {_spread(one.values(Prefer.SPEED))}",
        f"{one.best_rows}{_alone(one, original)}",
        told(median(one.values(Prefer.MEMORY))),
        NONE if one.method is None else f"{one.judgement.difference:.1e}",
        _score(one.judgement),
        loss,
        verdict,
    ]


def markdown(candidates: Sequence[Candidate], choice: Choice) -> Iterator[str]:
    """Lines of a table."""
    original = candidates[0]
    yield f"| {' | '.join(columns(original))} |"
    yield f"|---|{'---:|' * (len(columns(original)) - 2)}---|"
    for one in candidates:
        yield f"| {' | '.join(cell.replace('|', ' ') for cell in cells(one, original, choice))} |"


def as_json(candidates: Sequence[Candidate], choice: Choice) -> list[dict[str, Any]]:
    """A record for each candidate, with the figures of each round."""
    original = candidates[0]
    return [
        {
            "method": one.name,
            "size_bytes": one.size_bytes,
            "judgement": None if one.judgement is None else one.judgement.model_dump(mode="json"),
            "loss": one.loss(original) if one.is_measured and one is not original else None,
            "rounds": [found.model_dump(mode="json") for found in one.rounds],
            "verdict": "" if one.method is None else choice.verdicts[one.method],
        }
        for one in candidates
    ]


def _alone(one: Candidate, original: Candidate) -> str:
    """Where the method made rows depend on each other, so that no worker puts two into a run."""
    return " alone" if len(one.rounds[0].rates) < len(original.rounds[0].rates) else ""


def _spread(values: Sequence[float]) -> str:
    """Half the distance between the rounds' extremes, as a share of the median."""
    return f"±{(max(values) - min(values)) / 2 / median(values):.0%}"


def _score(judged: Judgement) -> str:
    return NONE if judged.metric is None or judged.score is None else judged.metric.told(judged.score)
