"""Labels of frames become symbols, and a sound that is cut anywhere becomes the same ones."""

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.tasks.ctc import Alphabet, Labels, Window, Windows, stride_of

SYMBOLS = ("<blank>", "a", "b", "▁c", "|", "<unk>")
ALPHABET = Alphabet(SYMBOLS, 0, "|")
FRAME = 4
"""Samples of each frame, whose label each of them holds."""


def collapsed(labels: list[int]) -> list[int]:
    """The definition."""
    return [label for label, _ in groupby(labels) if label]


def found(labels: list[int], start: int = 0, end: int | None = None) -> tuple[list[int], int, int]:
    result = ALPHABET.collapse(np.array(labels, np.int64), start, len(labels) if end is None else end)
    return list(result.labels), result.start, result.end


def heard(window: Window) -> Labels:
    return window.samples[::FRAME].astype(np.int64)


def test_repeats_are_one_symbol_and_blanks_are_none() -> None:
    assert found([0, 1, 1, 0, 1, 2, 2, 0, 0]) == ([1, 1, 2], 1, 7)
    assert found([0, 0, 0]) == ([], 0, 0)
    assert found([]) == ([], 0, 0)


def test_a_symbol_belongs_to_where_its_first_frame_lies() -> None:
    labels = [1, 1, 1, 2, 2, 0]
    assert found(labels, 0, 2) == ([1], 0, 3)
    assert found(labels, 2, 4) == ([2], 3, 5)
    assert found(labels, 4, 6) == ([], 0, 0)


def test_labels_become_text() -> None:
    assert ALPHABET.text([1, 4, 2, 3, 5, 1]) == "a b ca"
    assert Alphabet(SYMBOLS, "<blank>", "a").text([1, 0, 4, 99]) == " |"


@pytest.mark.parametrize("blank", [6, -1, "<pad>"])
def test_a_blank_that_is_no_label_is_an_error(blank: int | str) -> None:
    with pytest.raises(ValueError, match=f"{blank!r} is none of the 6 labels"):
        Alphabet(SYMBOLS, blank, "|")


def test_the_best_label_is_taken_whatever_the_scores_are() -> None:
    scores = np.array([[0, 1, 0], [-5, -9, -4], [-np.inf, -1, -2], [3, 3, 2]], np.float32)
    assert ALPHABET.best(scores).tolist() == [1, 2, 1, 0]
    assert ALPHABET.best(np.empty((0, 6), np.float32)).tolist() == []
    assert ALPHABET.best(np.empty((2, 0), np.float32)).tolist() == [0, 0]


@settings(max_examples=200, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=60),
    rest=st.integers(0, FRAME - 1),
    length=st.integers(1, 150),
    overlap=st.integers(1, 40),
    frames_of_unit=st.integers(1, 4),
    block=st.integers(1, 300),
)
def test_any_cut_of_a_sound_gives_the_symbols_of_the_whole(
    runs: list[tuple[int, int]], rest: int, length: int, overlap: int, frames_of_unit: int, block: int
) -> None:
    labels = [label for label, frames in runs for _ in range(frames)]
    samples = np.repeat(labels, FRAME).astype(np.float32)
    samples = samples[: len(samples) - rest]
    unit = frames_of_unit * FRAME
    windows = Windows(length=2 * overlap + 3 * unit + length, overlap=overlap, unit=unit)
    cut = list(windows.cut(samples[place : place + block] for place in range(0, len(samples), block)))
    symbols: list[int] = []
    moments: list[int] = []
    for window in cut:
        own, start = heard(window), (window.keep_from - window.start) // FRAME
        end = len(own) if window.last else (window.keep_to - window.start) // FRAME
        part = ALPHABET.collapse(own, start, end)
        symbols += part.labels
        moments += [window.start + part.start * FRAME] * bool(part.labels)
    assert symbols == collapsed(labels)
    assert moments == sorted(moments)


@settings(max_examples=200, deadline=None)
@given(size=st.integers(0, 2_000), length=st.integers(20, 400), overlap=st.integers(1, 50), unit=st.integers(1, 16))
def test_middles_are_the_whole_sound_and_have_their_context(size: int, length: int, overlap: int, unit: int) -> None:
    try:
        windows = Windows(length=length, overlap=overlap, unit=unit)
    except ValueError:
        assert length < 2 * -(-overlap // unit) * unit + unit
        return
    samples = np.arange(size, dtype=np.float32)
    cut = list(windows.cut(samples[place : place + 64] for place in range(0, size, 64)))
    assert [window.keep_from for window in cut[1:]] == [window.keep_to for window in cut[:-1]]
    assert (cut[0].keep_from, cut[-1].keep_to) == (0, size)
    assert [window.last for window in cut] == [False] * (len(cut) - 1) + [True]
    for window in cut:
        end = window.start + len(window.samples)
        assert window.samples.tolist() == samples[window.start : end].tolist()
        assert window.start % unit == 0
        assert window.start == 0 or window.keep_from - window.start >= overlap
        assert window.last or end - window.keep_to >= overlap
        assert len(window.samples) == length if not window.last else len(window.samples) <= length


def test_a_last_window_is_about_as_long_as_the_others() -> None:
    windows = Windows(length=100, overlap=10, unit=5)
    for size in range(101, 400):
        *_, last = windows.cut([np.zeros(size, np.float32)])
        assert 95 < len(last.samples) <= 100


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 3), (4, 0), (8, 7), (6, -9)])
def test_the_stride_of_features_is_found_out(stride: int, padding: int) -> None:
    for frames in range(150, 2_000, 37):
        assert stride_of(48, frames, (frames + padding) // stride) == stride


@pytest.mark.parametrize(("stride", "field"), [(320, 400), (160, 160), (640, 1_000), (256, 1_024), (1_280, 2_000)])
def test_the_stride_of_a_waveform_is_found_out(stride: int, field: int) -> None:
    for samples in range(24_000, 400_000, 12_345):
        assert stride_of(15_360, samples, (samples - field) // stride + 1) == stride
