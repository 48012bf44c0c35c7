"""Who says what: utterances of one to seven digits, in voices that differ by accent, speaker, speed and pitch.

A speaker (espeak-ng's "variant") belongs to one part only. The held-out speakers, and one accent that only they have,
serve the final measures; the validation speakers draw the curve, and judge the graph of 8 bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_DIGITS = 7
ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc")
HELD_OUT_ACCENT = "en-gb-x-gbcwmd"
WORDS_PER_MINUTE = (120, 240)
PITCH = (25, 75)
"""Of espeak-ng's 0 to 99."""


class Part(StrEnum):
    """What utterances are for."""

    TRAIN = "train"
    VALIDATION = "validation"
    HELD_OUT = "held_out"


# Speakers who do not say the same twice are left out: espeak-ng draws the breath of f2, f3, f5, Alicia, caleb, sandro
# and victor by the clock.
SPEAKERS: dict[Part, tuple[str, ...]] = {
    Part.TRAIN: (
        *("m1", "m2", "m3", "m5", "m6", "m7", "f1", "klatt", "klatt2", "klatt4", "croak"),
        *("Alex", "Andy", "Denis", "Gene", "Jacky", "Lee", "Mario", "Michael", "aunty", "belinda"),
        *("benjamin", "boris", "david", "edward", "gustave", "ian", "iven", "john", "max", "michel"),
        *("norbert", "pablo", "paul", "quincy", "rob", "robert", "shelby", "steph"),
    ),
    Part.VALIDATION: ("m8", "Andrea", "miguel", "klatt3"),
    Part.HELD_OUT: ("m4", "f4", "linda", "Annie", "Mike", "ed", "travis", "zac", "pedro"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """Digits, and how they are said: `voice` is espeak-ng's name, `speed` words a minute."""

    digits: tuple[int, ...]
    voice: str
    speed: int
    pitch: int

    @property
    def text(self) -> str:
        """The words."""
        return spoken(self.digits)


def spoken(digits: Sequence[int]) -> str:
    """Their words."""
    return " ".join(DIGITS[digit] for digit in digits)


def plan(part: Part, count: int, seed: int) -> list[Utterance]:
    """`count` utterances of a part, the same for the same seed; the first of a longer plan are those of a shorter."""
    random = np.random.default_rng((seed, list(Part).index(part)))
    accents = (*ACCENTS, HELD_OUT_ACCENT) if part is Part.HELD_OUT else ACCENTS
    return [_utterance(random, accents, SPEAKERS[part]) for _ in range(count)]


def _utterance(random: np.random.Generator, accents: tuple[str, ...], speakers: tuple[str, ...]) -> Utterance:
    digits = random.integers(0, len(DIGITS), random.integers(1, MOST_DIGITS + 1))
    accent, speaker = accents[random.integers(len(accents))], speakers[random.integers(len(speakers))]
    return Utterance(
        digits=tuple(digits.tolist()),
        voice=f"{accent}+{speaker}",
        speed=int(random.integers(*WORDS_PER_MINUTE, endpoint=True)),
        pitch=int(random.integers(*PITCH, endpoint=True)),
    )
