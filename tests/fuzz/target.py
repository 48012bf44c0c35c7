"""What is fuzzed: a target makes inputs, gives them to the code that a stranger would reach, and judges what becomes of
them.

An input is a string of bytes, whatever it stands for, and is made from the seed, the target's name and its own number
alone: any one of them can be made again without the others.
"""

import random
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import ClassVar, NoReturn


class Finding(AssertionError):
    """An input that broke a contract."""


class Target:
    """One door. A subclass says what its inputs are and what may become of them."""

    name: ClassVar[str]
    share: ClassVar[int]
    """How many of 100,000 inputs it gets."""
    growth_bytes: ClassVar[int] = 512 << 20
    """What one input may add to the most that the process has ever held."""
    address_space_bytes: ClassVar[int | None] = 12 << 30
    """Of the process, so that a bomb hits it and not the machine; None: as it is."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def open(self, stack: ExitStack) -> None:
        """Called once, before the first input is run."""

    @cached_property
    def known(self) -> Sequence[bytes]:
        """Inputs that always come first: what is valid, and what was or might be found."""
        return ()

    def make(self, index: int) -> bytes:
        if index < len(self.known):
            return self.known[index]
        return self.mutant(random.Random(f"{self.seed}/{self.name}/{index}"))

    def mutant(self, dice: random.Random) -> bytes:
        """A further input."""
        raise NotImplementedError

    def run(self, data: bytes) -> bool:
        """Whether the input was accepted. Raises Finding; anything else that it raises is a finding too."""
        raise NotImplementedError

    def finish(self) -> None:
        """Called once, behind the last input. Raises Finding."""


def must(condition: object, text: str) -> None:
    """Raises Finding where the condition does not hold."""
    if not condition:
        fail(text)


def fail(text: str) -> NoReturn:
    raise Finding(text)
