"""Stop strings, found across the borders of tokens.

The text ends at the first character that completes any stop string; of those completed there, the longest counts. That
depends on the text alone, not on how tokens cut it. The matcher is Knuth, Morris and Pratt's (1977), one automaton for
each string; its state is the length of what could still become a match, which is what must be held back.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class StopMatcher:
    """Passes text through until a stop string completes."""

    def __init__(self, stops: Sequence[str], *, include: bool) -> None:
        """`include`: the match stays in the text, and then nothing needs to be held back."""
        self._automata = [_Automaton(stop, _borders(stop)) for stop in sorted(stops, key=len, reverse=True) if stop]
        self._include = include
        self._held = ""

    def push(self, text: str, *, armed: bool = True) -> tuple[str, str]:
        """(text that is certain, the stop string that completed or ""). After a match nothing may be pushed. A stop
        string that completes while not armed is text like any other."""
        if not self._automata:
            return text, ""
        for index, character in enumerate(text):
            matches = [automaton.pattern for automaton in self._automata if automaton.advance(character)]
            if matches and armed:
                return self._cut(text[: index + 1], matches[0]), matches[0]
        self._held += text
        keep = 0 if self._include else max(automaton.state for automaton in self._automata)
        certain = len(self._held) - keep
        text, self._held = self._held[:certain], self._held[certain:]
        return text, ""

    def flush(self) -> str:
        """What is held back, once no more text can come."""
        held, self._held = self._held, ""
        return held

    def _cut(self, text: str, match: str) -> str:
        text = self.flush() + text
        return text if self._include else text[: -len(match)]


@dataclass(slots=True)
class _Automaton:
    """`state`: the longest prefix of the pattern that the text ends with."""

    pattern: str
    borders: list[int]
    state: int = 0

    def advance(self, character: str) -> bool:
        """Whether the pattern ends with this character."""
        while self.state and self.pattern[self.state] != character:
            self.state = self.borders[self.state]
        self.state += self.pattern[self.state] == character
        if self.state < len(self.pattern):
            return False
        self.state = self.borders[self.state]
        return True


def _borders(pattern: str) -> list[int]:
    """By length of prefix: how long the longest proper prefix is that is its suffix too."""
    borders, state = [0, 0], 0
    for character in pattern[1:]:
        while state and pattern[state] != character:
            state = borders[state]
        state += pattern[state] == character
        borders.append(state)
    return borders
