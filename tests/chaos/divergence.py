"""Why a continued text is another one: how near its first other token was to being drawn, and how far prefill moved it.

In process, with the engine's own session, whose bits are the workers'. An undisturbed run gives the logits that the
expected token was drawn from, a continuation of the same log those of the one that was found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from millrace.engine import Work
from services.worker.generation.sampling.draws import uniforms
from services.worker.generation.sampling.graph import ATTEMPTS
from services.worker.repository import Model
from tests.worker.generation.watched import Draw, WatchedEngine, watched

ROUNDING = 4e-6
"""What a sum of some thousand probabilities may be off where each addition rounds to 32 bits."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """How a job's tokens are drawn where it is not greedy."""

    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A job whose token at `position` is another one since it went on from the log in `work`."""

    work: Work
    sampled: Sampled | None
    position: int
    logged: int
    """Tokens in the log."""
    expected: int
    found: int

    @property
    def is_greedy(self) -> bool:
        return self.sampled is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """`margin`: how near the expected token was to not being drawn, in logits where it is greedy, else in probability.
    `moved`: by how much prefill may have changed that. `repeats`: whether both tokens come out again in process."""

    divergence: Divergence
    margin: float
    moved: float
    repeats: bool

    @property
    def explains(self) -> bool:
        return self.repeats and self.margin <= self.moved


def reasons(model: Model, divergences: Sequence[Divergence]) -> list[Reason]:
    """`model` is one that prefills."""
    positions = {one.work.lease: one.position for one in divergences}
    calm = draws_at(watched(model), [replace(one.work, results=()) for one in divergences], positions)
    prefilled = draws_at(watched(model), [one.work for one in divergences], positions)
    return [_reason(one, calm[one.work.lease], prefilled[one.work.lease]) for one in divergences]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearness:
    """Of so many greedy choices behind a prefill that came out as expected: the smallest lead of the best logit over
    the next, and the most that prefill moved any logit."""

    choices: int
    margin: float
    moved: float


def nearness(model: Model, works: Sequence[Work]) -> Nearness:
    """`works` are greedy jobs whose texts did not change; `model` is one that prefills, with slots for all of them."""
    calm, prefilled = watched(model), watched(model)
    _run(calm, [replace(work, results=()) for work in works])
    _run(prefilled, works)
    choices = [(calm.draws[place].logits, draw.logits) for place, draw in prefilled.draws.items()]
    leads = (np.partition(before, -2)[-2:] for before, _ in choices)
    return Nearness(
        choices=len(choices),
        margin=min(float(best - second) for second, best in leads),
        moved=max(float(abs(after - before).max()) for before, after in choices),
    )


def draws_at(engine: WatchedEngine, works: Sequence[Work], positions: Mapping[str, int]) -> dict[str, Draw]:
    """Each job's draw at its position; nothing of one that ends before it."""
    found = dict[str, Draw]()

    def look() -> None:
        for (lease, position), draw in engine.draws.items():
            if position == positions[lease]:
                found[lease] = draw
                engine.abort(lease)
        engine.draws.clear()

    _run(engine, works, look)
    return found


def _run(engine: WatchedEngine, works: Sequence[Work], after_step: Callable[[], None] = lambda: None) -> None:
    """Steps until all have ended or were aborted."""
    waiting = list(works)
    while True:
        while waiting and engine.capacity().jobs:
            engine.add(waiting.pop())
        if engine.step() is None:
            return
        after_step()


def _reason(one: Divergence, calm: Draw, prefilled: Draw) -> Reason:
    repeats = (calm.token_id, prefilled.token_id) == (one.expected, one.found)
    before, after = calm.logits.astype(np.float64), prefilled.logits.astype(np.float64)
    if one.sampled is None:
        margin = float(before[one.expected] - before[one.found])
        return Reason(divergence=one, margin=margin, moved=2 * float(abs(after - before).max()), repeats=repeats)
    chances, others = (_probabilities(logits, one.sampled.temperature) for logits in (before, after))
    moved = float(abs(chances - others).sum()) + ROUNDING
    return Reason(divergence=one, margin=_margin(chances, one.sampled, one.position), moved=moved, repeats=repeats)


def _probabilities(logits: Floats, temperature: float) -> Floats:
    weights = np.exp((logits - logits.max()) / temperature)
    chances: Floats = weights / weights.sum()
    return chances


def _margin(chances: Floats, sampled: Sampled, position: int) -> float:
    """The smallest change of probability that lets the draw come out otherwise: how near a uniform number is to the
    border of two tokens, or the mass of the better tokens to top_p, or another token to being one of the better ones
    where that matters (see services/worker/generation/sampling/graph.py)."""
    left, margin = chances, np.inf
    seed, first, place = (np.array([number], np.uint64) for number in (sampled.seed, 0, position))
    draws = uniforms(seed, first, place, ATTEMPTS)[0]
    for uniform in draws.astype(np.float64):
        borders = left.cumsum() / left.sum()
        token = min(int(np.searchsorted(borders, uniform, side="right")), len(left) - 1)
        others, mine = np.delete(left, token), left[token]
        better = others[others > mine].sum()
        margin = min(margin, abs(borders - uniform).min(), abs(better - sampled.top_p))
        if better < sampled.top_p:
            return float(min(margin, _lead(others[others <= mine], mine, sampled.top_p - better)))
        margin = min(margin, abs(others - mine).min())
        left = np.where(left > mine, left, 0.0)
    return float(margin)


def _lead(worse: Floats, mine: float, room: float) -> float:
    """By how much an accepted token is ahead of those that would fill the room for better ones if they were it."""
    ordered = np.sort(worse)[::-1]
    full = int(np.searchsorted(ordered.cumsum(), room))
    return mine - float(ordered[full]) if full < len(ordered) else np.inf
