"""What came of a workload of generation requests, whoever served it."""

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Completions:
    """By request. Times are in seconds from the start of the measurement."""

    seconds: float
    """From the first request to the last token."""
    sent_s: list[float]
    """When each request was sent; in an open loop, when it was due."""
    times_s: list[list[float]]
    """When each message of its stream came; the first brings the first token."""
    token_ids: list[list[int]]
    cached_tokens: list[int] = field(default_factory=list)
    """Of each prompt, how many tokens the server found in its cache; empty where it does not say."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.token_ids))

    @property
    def rate(self) -> float:
        """Output tokens a second."""
        return self.tokens / self.seconds

    @property
    def first_ms(self) -> list[float]:
        """From each request to its first token."""
        return [1000 * (times[0] - sent) for sent, times in zip(self.sent_s, self.times_s, strict=True)]

    @property
    def per_token_ms(self) -> list[float]:
        """Of each stream, from its first token to its last, for each one after the first."""
        return [
            1000 * (times[-1] - times[0]) / max(len(ids) - 1, 1)
            for times, ids in zip(self.times_s, self.token_ids, strict=True)
        ]
