"""Speculation without a draft model: what followed the last time when the text ended as it does now (prompt lookup,
Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding). The model runs over the guess in one step and draws at each
position as it would have drawn there; the guess holds as far as the draws agree with it, so that it changes when tokens
come, and not which."""

import time
from collections.abc import Sequence as Ordered

from services.worker.generation.sequence import Sequence

LONGEST, SHORTEST = 3, 2
"""Tokens that an earlier place must share with the end of the text."""
PROBE_EVERY = 32
FADING = 0.9


class PromptLookup:
    """Of one text: where each of its short runs of tokens ended last."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}

    def extend(self, token_ids: Ordered[int]) -> None:
        """Further tokens of the text. A run that ends with the newest one is noted with the next."""
        for token_id in token_ids:
            end = len(self._token_ids)
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self._ends[tuple(self._token_ids[end - size :])] = end
            self._token_ids.append(token_id)

    def __len__(self) -> int:
        return len(self._token_ids)

    def guess(self, count: int) -> list[int]:
        """What may come next, at most `count` tokens; empty where the text ends as it never did before."""
        for size in range(min(LONGEST, len(self._token_ids)), SHORTEST - 1, -1):
            end = self._ends.get(tuple(self._token_ids[len(self._token_ids) - size :]))
            if end is not None:
                return self._token_ids[end : end + count]
        return []


class Payoff:
    """Whether guessing gives more tokens a second than not guessing, by what both gave lately. Where it does not, it is
    tried again now and then."""

    def __init__(self) -> None:
        self._plain = self._guessed = 0.0
        """Tokens a second, 0 where not known yet."""
        self._since_probe = 0

    def pays(self) -> bool:
        """Asked before a step that could guess."""
        if not self._plain:
            return False
        if not self._guessed or self._guessed > self._plain:
            return True
        self._since_probe += 1
        if self._since_probe < PROBE_EVERY:
            return False
        self._since_probe = 0
        return True

    def note(self, *, guessed: bool, tokens: int, began: float) -> None:
        """A step of one row that began then, by the monotonic clock, and gave so many tokens."""
        rate = tokens / max(time.monotonic() - began, 1e-9)
        if guessed:
            self._guessed = _fade(self._guessed, rate)
        else:
            self._plain = _fade(self._plain, rate)


class Guesser:
    """For the one sequence that decodes alone. `most`: how many tokens it guesses ahead; 0: none, ever."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._payoff = Payoff()
        self._known: tuple[Sequence, PromptLookup] | None = None

    def guess(self, sequence: Sequence) -> list[int]:
        """Its next tokens; empty where there is nothing to go by, or it does not pay."""
        left = min(sequence.task.stopping.max_tokens - sequence.completion_tokens - 1, self._most)
        if left < 1 or not sequence.is_plain or not self._payoff.pays():
            return []
        if self._known is None or self._known[0] is not sequence:
            self._known = sequence, PromptLookup()
            self._known[1].extend(sequence.task.prompt_ids)
        lookup = self._known[1]
        lookup.extend(sequence.completion_ids[len(lookup) - len(sequence.task.prompt_ids) :])
        return lookup.guess(left)

    def note(self, *, guessed: bool, tokens: int, began: float) -> None:
        """As `Payoff.note`."""
        self._payoff.note(guessed=guessed, tokens=tokens, began=began)


def _fade(before: float, latest: float) -> float:
    return latest if not before else FADING * before + (1 - FADING) * latest
