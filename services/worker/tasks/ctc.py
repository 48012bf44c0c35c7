"""Connectionist temporal classification: scores of each frame → text (A. Graves et al., ICML 2006).

The best label of each frame is taken; labels that repeat the frame before are one symbol, and blanks are none: "best
path decoding". Long sounds are run window by window, and the text is the same for any cut, as far as a frame's best
label depends on no more than `overlap` of the sound around it:

    window i      |····|------ middle i ------|····|
    window i + 1                         |····|---- middle i + 1 ----|····|
                                                   ···· is overlap, which only gives the others their context

Every frame of the sound lies in exactly one middle, since windows and middles begin at multiples of a unit that holds a
whole number of frames; the first window has its middle begin with the sound, the last one has it end with the sound.
A symbol belongs to the window in whose middle its first frame lies. Whether the first frame of a middle begins one is
seen from the frame before it, which the same window holds too: so no window needs to know of another one's outputs.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.worker.batch.graph import Array
from services.worker.tasks.sound import Samples

Labels = npt.NDArray[np.int64]
"""[frames]."""
WORD_START = "▁"
"""Of SentencePiece, before the first piece of a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of a sound that is run at once. Positions are in samples of the sound."""

    samples: Samples
    start: int
    keep_from: int
    """Where its middle begins."""
    keep_to: int
    """Where it ends."""
    last: bool


class Windows:
    """How long sounds are cut."""

    def __init__(self, *, length: int, overlap: int, unit: int) -> None:
        """In samples; `overlap` is rounded up to the unit, and middles down. Raises ValueError where a window does not
        hold them."""
        self._length, self._overlap, self._unit = length, -(-overlap // unit) * unit, unit
        self._step = (length - 2 * self._overlap) // unit * unit
        if self._step < unit:
            raise ValueError(f"of {length} samples, {self._overlap} on either side leave less than {unit} to be kept")

    def cut(self, blocks: Iterable[Samples]) -> Iterator[Window]:
        """The windows of a sound that comes in blocks, each as soon as it is known whether it is the last, which begins
        earlier than it would have to, so as to be about as long as the others."""
        held, origin, start = np.empty(0, np.float32), 0, 0
        for block in blocks:
            held = np.concatenate((held, block))
            while origin + len(held) > start + self._length:
                yield self._window(held, origin, start, start + self._step + self._overlap)
                origin, held = start, held[start - origin :]
                start += self._step
        end = origin + len(held)
        begin = -(-max(end - self._length, 0) // self._unit) * self._unit
        keep_from = start + self._overlap if start else 0
        yield Window(samples=held[begin - origin :], start=begin, keep_from=keep_from, keep_to=end, last=True)

    def _window(self, held: Samples, origin: int, start: int, keep_to: int) -> Window:
        samples = held[start - origin : start - origin + self._length]
        keep_from = start + self._overlap if start else 0
        return Window(samples=samples, start=start, keep_from=keep_from, keep_to=keep_to, last=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The symbols of some frames."""

    labels: Sequence[int]
    start: int
    """The first symbol's first frame; 0 where there is none."""
    end: int
    """Behind the last symbol's last one."""


class Alphabet:
    """What labels stand for: a text, a space, or, as the blank and control symbols like <unk>, nothing."""

    def __init__(self, symbols: Sequence[str], blank: int | str, word_separator: str) -> None:
        """Raises ValueError where no symbol is the blank."""
        if blank not in (range(len(symbols)) if isinstance(blank, int) else symbols):
            raise ValueError(f"{blank!r} is none of the {len(symbols)} labels")
        self.blank = blank if isinstance(blank, int) else symbols.index(blank)
        self._texts = [_text(symbol, word_separator) for symbol in symbols]
        self._texts[self.blank] = ""

    def text(self, labels: Iterable[int]) -> str:
        """Of symbols that follow each other. Labels beyond the alphabet are none."""
        return "".join(self._texts[label] for label in labels if label < len(self._texts))

    def best(self, scores: Array) -> Labels:
        """Of scores [frames, labels], in any scale; of equals the first."""
        return scores.argmax(axis=-1) if scores.size else np.full(len(scores), self.blank)

    def collapse(self, labels: Labels, start: int, end: int) -> Found:
        """The symbols that begin in labels[start:end]."""
        before = labels[start - 1] if start else self.blank
        kept = labels[start:end]
        changes = np.flatnonzero(np.diff(kept, prepend=before))
        symbols = changes[kept[changes] != self.blank]
        if not symbols.size:
            return Found(labels=(), start=0, end=0)
        last = symbols[-1] + start
        others = np.flatnonzero(labels[last:] != labels[last])
        behind = last + others[0] if others.size else len(labels)
        return Found(labels=kept[symbols].tolist(), start=int(symbols[0]) + start, end=int(behind))


def stride_of(unit: int, frames: int, outputs: int) -> int:
    """How many frames of input each of the output stands for, of a graph that made so many of so many: the divisor of
    `unit` that is closest to the ratio, which is a little larger where convolutions have no padding."""
    ratio = math.log(max(frames, 1) / max(outputs, 1))
    return min(_divisors(unit), key=lambda size: abs(math.log(size) - ratio))


@functools.cache
def _divisors(unit: int) -> list[int]:
    return [size for size in range(1, unit + 1) if unit % size == 0]


def _text(symbol: str, word_separator: str) -> str:
    if len(symbol) > 2 and symbol[0] == "<" and symbol[-1] == ">":
        return ""
    return " " if symbol == word_separator else symbol.replace(WORD_START, " ")
