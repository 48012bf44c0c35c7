"""What a job asks of the engine, free of protobuf."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a completion's tokens are drawn. temperature 0: greedy; top_k 0: the whole vocabulary."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, what is added to its logit)."""

    @property
    def penalises(self) -> bool:
        return (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When a completion ends. `max_tokens` is already within the context."""

    max_tokens: int
    min_tokens: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    """End-of-sequence tokens, unless they are ignored, and the request's own."""
    include_stop_string: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request that can be run."""

    lease: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    stopping: Stopping
    completions: int = 1
    logprobs: int | None = None
    """How many candidates are told beside each token; None: no log-probabilities at all."""
    prompt_logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What the results log holds of one completion."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the results log holds of a job."""

    completions: tuple[Logged, ...]
    prompt_tokens: int = 0
    """Of how many tokens of the prompt it tells the log-probabilities."""
    finished: bool = False
    """Whether its last result is there."""
