"""What is asked of everybody: prompts as token ids, lengths of outputs, times of arrival; each round its own, because
servers remember prompts."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.generation.settings import Settings
from millrace.v1.generation_pb2 import GenerateRequest, Sampling, Stopping, TokenIds


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Greedy completions of exactly `tokens`, whatever the end-of-text token. Either a closed loop of `callers` or an
    open one at `due_s`."""

    prompts: Sequence[Sequence[int]]
    tokens: Sequence[int]
    callers: int = 0
    due_s: Sequence[float] = ()
    """From the start, ascending."""
    warm: Sequence[int] = ()
    """A prompt that is sent before all others, and does not count."""

    def __len__(self) -> int:
        return len(self.prompts)


def closed(settings: Settings, vocabulary: int, number: int) -> Requests:
    """Prompts of one length that have nothing in common."""
    random = _random(settings, 1, number)
    count, length = settings.requests, settings.prompt_tokens
    return Requests(
        prompts=random.integers(1, vocabulary, (count, length)).tolist(),
        tokens=_between(random, settings.output_tokens, count),
        callers=settings.callers,
        warm=_prompt(random, vocabulary, length),
    )


def chat(settings: Settings, vocabulary: int, number: int, rate: float = 0.0) -> Requests:
    """Prompts that begin alike: Poisson arrivals at `rate` a second, or a closed loop where that is 0."""
    random = _random(settings, 2, number)
    count, prefix = settings.chat_requests, _prompt(random, vocabulary, settings.chat_prefix_tokens)
    own = _between(random, settings.chat_own_tokens, count)
    requests = Requests(
        prompts=[prefix + _prompt(random, vocabulary, length) for length in own],
        tokens=_between(random, settings.output_tokens, count),
        callers=settings.callers,
        warm=_prompt(random, vocabulary, settings.chat_prefix_tokens),
    )
    if not rate:
        return requests
    return replace(requests, callers=0, due_s=np.cumsum(random.exponential(1 / rate, count)).tolist())


def long_prompts(settings: Settings, vocabulary: int, number: int) -> Requests:
    """Streams that run from the start, then long prompts at even intervals."""
    random = _random(settings, 3, number)
    running, long = settings.running_streams, settings.long_prompts
    lengths = [settings.prompt_tokens] * running + [settings.long_prompt_tokens] * long
    times = itertools.count(settings.long_after_s, settings.long_every_s)
    return Requests(
        prompts=[_prompt(random, vocabulary, length) for length in lengths],
        tokens=[settings.running_tokens] * running + [settings.long_output_tokens] * long,
        due_s=[0.0] * running + list(itertools.islice(times, long)),
        warm=_prompt(random, vocabulary, settings.prompt_tokens),
    )


def messages(requests: Requests, model: str) -> list[bytes]:
    """Each as a GenerateRequest, the warm one first."""
    return [
        GenerateRequest(
            model=model,
            tokens=TokenIds(ids=prompt),
            sampling=Sampling(temperature=0),
            stopping=Stopping(max_tokens=tokens, ignore_eos=True),
        ).SerializeToString()
        for prompt, tokens in zip([requests.warm, *requests.prompts], [1, *requests.tokens], strict=True)
    ]


def _random(settings: Settings, workload: int, number: int) -> np.random.Generator:
    return np.random.default_rng((settings.seed, workload, number))


def _between(random: np.random.Generator, bounds: tuple[int, int], count: int) -> list[int]:
    """Both bounds included."""
    found: list[int] = random.integers(bounds[0], bounds[1] + 1, count).tolist()
    return found


def _prompt(random: np.random.Generator, vocabulary: int, tokens: int) -> list[int]:
    """Token 0 is the end of text."""
    found: list[int] = random.integers(1, vocabulary, tokens).tolist()
    return found
