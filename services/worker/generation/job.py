"""One job in the engine: its completions, which share the prompt, and what it has to tell behind a step."""

from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

from millrace.engine import Failure
from services.worker.generation.sampling.scorer import Score
from services.worker.generation.sequence import Delta, Sequence
from services.worker.generation.task import Log, Task


@dataclass(slots=True, eq=False)
class Job:
    """Its sequences run side by side; the job ends with the last of them."""

    task: Task
    sequences: Ordered[Sequence]
    scored: int = 0
    """Of how many tokens of the prompt the log-probabilities have been told."""
    cached_tokens: int = 0
    """Of the prompt, how many were found in the cache."""
    fresh: dict[int, Delta] = field(default_factory=dict)
    """By completion: what the running step adds."""
    fresh_scores: list[Score] = field(default_factory=list)
    """Of the prompt's tokens, likewise."""
    failure: Failure | None = None
    latest: tuple[int, int] = (0, 0)
    """(number of the step that last ran it, how many of its tokens that step computed)."""

    @property
    def lease(self) -> str:
        return self.task.lease

    @property
    def completion_tokens(self) -> int:
        return sum(sequence.completion_tokens for sequence in self.sequences)

    @property
    def cost(self) -> int:
        return len(self.task.prompt_ids) + self.completion_tokens

    @property
    def running(self) -> list[Sequence]:
        return [sequence for sequence in self.sequences if sequence.last is None]

    @property
    def has_news(self) -> bool:
        return bool(self.fresh or self.fresh_scores or self.failure)

    @property
    def scores_prompt(self) -> bool:
        """Whether log-probabilities of the prompt have still to be told."""
        return self.task.prompt_logprobs is not None and self.scored < len(self.task.prompt_ids)

    def resume(self, log: Log, *, replay: bool) -> None:
        """Goes on behind the log. Raises `LogMismatch`."""
        self.scored = log.prompt_tokens
        for sequence, logged in zip(self.sequences, log.completions, strict=True):
            sequence.resume(logged, replay=replay)
            if sequence.last is not None and not logged.finished:
                self.fresh[sequence.index] = sequence.last

    def tell(self, index: int, delta: Delta) -> None:
        """What a completion adds in this step."""
        if index in self.fresh:
            self.fresh[index].extend(delta)
        else:
            self.fresh[index] = delta

    def score(self, first: int, scores: Ordered[Score]) -> None:
        """Log-probabilities of the prompt's tokens from `first` on, some of which may have been told before."""
        self.fresh_scores += scores[max(self.scored - first, 0) :]
        self.scored = max(self.scored, first + len(scores))

    def count(self, step: int, tokens: int) -> None:
        """Notes that a step computes so many more tokens of it."""
        self.latest = (step, tokens + (self.latest[1] if self.latest[0] == step else 0))
