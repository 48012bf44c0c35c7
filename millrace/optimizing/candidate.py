"""One graph of the model, the original's first, and what was found of it."""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from millrace.optimizing.measuring.job import Judgement, Measures
from millrace.optimizing.order import Method, Prefer

LEAST_GAIN = 1.03
"""In the median; less is taken for noise."""
ROUNDING = 1e-9
"""That 1 − 0.995 is not more than 0.005."""


@dataclass(slots=True, kw_only=True)
class Candidate:
    """`method` None: the original. `refusal`: why there are no figures, or none any more."""

    method: Method | None
    graph: Path
    size_bytes: int = 0
    refusal: str = ""
    judgement: Judgement | None = None
    rounds: list[Measures] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "original" if self.method is None else self.method.value

    @property
    def is_measured(self) -> bool:
        return bool(self.rounds) and self.judgement is not None and not self.refusal

    @property
    def best_rows(self) -> int:
        """The batch of the highest rate, by the median over the rounds. Asked for when all are over."""
        return max(self.rounds[0].rates, key=lambda rows: median(one.rates[rows] for one in self.rounds))

    def values(self, prefer: Prefer) -> list[float]:
        """Of each round; more is better of SPEED alone."""
        match prefer:
            case Prefer.SPEED:
                return [one.rates[self.best_rows] for one in self.rounds]
            case Prefer.LATENCY:
                return [one.p50_ms for one in self.rounds]
            case Prefer.MEMORY:
                return [one.memory_bytes for one in self.rounds]
            case Prefer.SIZE:
                return [self.size_bytes] * len(self.rounds)

    def gains(self, original: "Candidate", prefer: Prefer) -> list[float]:
        """In each round how many times as good as the original; above 1 is better."""
        pairs = zip(original.values(prefer), self.values(prefer), strict=True)
        return [now / before if prefer is Prefer.SPEED else before / now for before, now in pairs]

    def is_better(self, original: "Candidate", prefer: Prefer) -> bool:
        """In every round: by chance that happens to one of 32 in five."""
        gains = self.gains(original, prefer)
        return median(gains) >= LEAST_GAIN and min(gains) > 1

    def loss(self, original: "Candidate") -> float:
        """Of the metric where there is one, else the largest difference of an output."""
        ours, before = self.judgement, original.judgement
        assert ours is not None, "asked for what was judged"
        assert before is not None, "the original is always"
        if ours.metric is None or ours.score is None or before.score is None:
            return ours.difference
        return ours.metric.loss(before.score, ours.score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`best` None: no candidate is within the loss and better than the original. `verdicts`: by method."""

    best: Candidate | None
    verdicts: dict[Method, str]


def choose(original: Candidate, candidates: list[Candidate], prefer: Prefer, max_loss: float) -> Choice:
    """The best in the preferred measure among those that lose at most so much."""
    verdicts: dict[Method, str] = {}
    fit: list[Candidate] = []
    for one in candidates:
        assert one.method is not None
        verdicts[one.method] = _verdict(original, one, prefer, max_loss)
        fit += [] if verdicts[one.method] else [one]
    best = max(fit, key=lambda one: median(one.gains(original, prefer)), default=None)
    for one in fit:
        assert one.method is not None
        verdicts[one.method] = "best" if one is best else "within the loss"
    return Choice(best=best, verdicts=verdicts)


def _verdict(original: Candidate, one: Candidate, prefer: Prefer, max_loss: float) -> str:
    """Why not; empty where there is no reason."""
    if not one.is_measured:
        return one.refusal or "was not measured"
    loss = one.loss(original)
    if not loss <= max_loss + ROUNDING:
        return f"misses the loss by {loss - max_loss:.2%}"
    if not one.is_better(original, prefer):
        return f"no better in {prefer.value}"
    return ""
