"""What a command printed, piece by piece, as a moving picture at the speed at which it came."""

import asyncio
import math
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS, FONT_SIZE, MARGIN = 84, 20, 14, 12
FRAMES_PER_S, LAST_S, COLOURS = 8, 4.0, 12
PAPER, INK, FAINT, ALARM, GOOD = "#11151c", "#d7dce2", "#7c8794", "#ff6b5e", "#63d297"
LINE = 1.35
"""Of the font's size."""


@dataclass(kw_only=True)
class Recording:
    """`pieces` are texts with the seconds at which they came; `events` what is told below them, with its colour."""

    command: str
    pieces: list[tuple[float, str]] = field(default_factory=list)
    events: list[tuple[float, str, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def now(self) -> float:
        """Seconds since the command was started."""
        return time.monotonic() - self.began

    def note(self, event: str, colour: str) -> None:
        self.events.append((self.now, event, colour))

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.pieces)


async def record(arguments: Sequence[str], recording: Recording, on_piece: Callable[[], None]) -> None:
    """Runs the command; `on_piece` is called behind each piece. Raises RuntimeError where it fails."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*arguments, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    assert process.stdout is not None
    while piece := await process.stdout.read(4096):
        recording.pieces.append((recording.now, piece.decode(errors="replace")))
        on_piece()
    if status := await process.wait():
        raise RuntimeError(f"{recording.command}: status {status}: {recording.text[-300:]}")


def write(recording: Recording, path: Path) -> None:
    """A GIF that repeats; frames that are alike are one, which is shown for longer."""
    end = recording.pieces[-1][0]
    shown: list[tuple[float, tuple[object, ...]]] = []
    for index in range(math.ceil(end * FRAMES_PER_S) + 1):
        seconds = index / FRAMES_PER_S
        text = "".join(text for when, text in recording.pieces if when <= seconds)
        events = tuple((event, colour) for when, event, colour in recording.events if when <= seconds)
        if not shown or shown[-1][1] != (text, events):
            shown.append((seconds, (text, events)))
    starts = [seconds for seconds, _ in shown]
    lasts = [later - earlier for earlier, later in zip(starts, [*starts[1:], starts[-1] + LAST_S], strict=True)]
    frames = [_frame(recording.command, str(text), events) for _, (text, events) in shown]  # type: ignore[arg-type]
    first, *others = (frame.quantize(COLOURS, dither=Image.Dither.NONE) for frame in frames)
    durations = [round(1_000 * seconds) for seconds in lasts]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, optimize=True)


def _frame(command: str, text: str, events: Sequence[tuple[str, str]]) -> Image.Image:
    """The command, the text's last rows, and the events below."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans Mono"), FONT_SIZE)
    height = FONT_SIZE * LINE
    size = (round(COLUMNS * font.getlength("m")) + 2 * MARGIN, round((ROWS + 4) * height) + 2 * MARGIN)
    picture = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(picture)
    rows = [(f"$ {command}", INK), *((row, GOOD) for row in _wrapped(text)[-ROWS:])]
    for number, (row, colour) in enumerate(rows):
        pen.text((MARGIN, MARGIN + number * height), row, colour, font)
    for number, (event, colour) in enumerate(events, start=ROWS + 2):
        pen.text((MARGIN, MARGIN + number * height), event, colour, font)
    return picture


def _wrapped(text: str) -> list[str]:
    rows: list[str] = []
    for line in text.expandtabs(4).splitlines():
        rows += textwrap.wrap(line, COLUMNS, drop_whitespace=False, replace_whitespace=False) or [""]
    return rows
