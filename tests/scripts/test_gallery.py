"""What a recorded terminal becomes."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.gallery.terminal import ALARM, FRAMES_PER_S, LAST_S, ROWS, Recording, record, write


def durations_ms(path: Path) -> list[int]:
    """Of each frame."""
    with Image.open(path) as picture:
        found = []
        for frame in range(getattr(picture, "n_frames", 1)):
            picture.seek(frame)
            found.append(int(picture.info["duration"]))
    return found


def test_frames_that_are_alike_are_one_and_a_pause_is_as_long_as_it_was(tmp_path: Path) -> None:
    recording = Recording(command="say", pieces=[(0.0, "one "), (0.1, "two"), (2.1, " three\n")])
    recording.events = [(1.1, "killed", ALARM)]
    write(recording, tmp_path / "made.gif")
    first, *others, last = durations_ms(tmp_path / "made.gif")
    assert first == pytest.approx(1_000 / FRAMES_PER_S, abs=10)
    assert [*others, last] == [1_000, 1_000, round(1_000 * LAST_S)]


def test_only_the_last_rows_of_a_long_text_are_shown(tmp_path: Path) -> None:
    short, long = ("".join(f"{number}\n" for number in numbers) for numbers in (range(30, 30 + ROWS), range(30 + ROWS)))
    for name, text in (("short", short), ("long", long)):
        write(Recording(command="count", pieces=[(0.0, text)]), tmp_path / f"{name}.gif")
    assert (tmp_path / "short.gif").read_bytes() == (tmp_path / "long.gif").read_bytes()


async def test_a_command_is_recorded_as_it_prints_and_one_that_fails_is_said() -> None:
    pieces: list[int] = []
    recording = Recording(command="python")
    code = "import os, time; os.write(1, b'one\\n'); time.sleep(0.3); os.write(1, b'two\\n')"
    await record([sys.executable, "-c", code], recording, lambda: pieces.append(len(recording.pieces)))
    (first, one), (second, two) = recording.pieces
    assert (one, two, pieces) == ("one\n", "two\n", [1, 2])
    assert second - first > 0.2
    failing = "import sys; print('no such model', file=sys.stderr); sys.exit(3)"
    with pytest.raises(RuntimeError, match="status 3: no such model"):
        await record([sys.executable, "-c", failing], Recording(command="python"), lambda: None)
