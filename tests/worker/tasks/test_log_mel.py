"""Features against their definition, written out slowly."""

import cmath
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from services.worker.tasks.log_mel import Features, LogMel, LogMelFields
from services.worker.tasks.sound import Samples
from tests.worker.tasks.sounds import RATE, melody

TUNE = np.asarray(
    melody("ac")[800:3_200] + np.random.default_rng(4).normal(0, 0.01, 2_400), np.float32
)  # 0.15 s: a tone, a gap and noise
SMALL: dict[str, Any] = {"mels": 12, "n_fft": 128, "window_samples": 100, "hop_samples": 64, "low_hz": 50}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"edges": "none"},
    {"edges": "zeros", "drop_last_frame": True},
    {"window": "symmetric", "window_samples": 128},
    {"scale": "slaney", "area": "slaney", "high_hz": 7_000},
    {"preemphasis": 0.97, "log": "log10", "floor": 1e-5},
    {"floor_is": "added", "floor": 2**-24},
    {"log": "whisper", "scale": "slaney"},
    {"normalise": "mean"},
    {"normalise": "mean-variance"},
]


def to_mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hz / 700)
    return hz * 3 / 200 if hz < 1_000 else 15 + 27 * math.log(hz / 1_000) / math.log(6.4)


def to_hz(mel: float, scale: str) -> float:
    """By bisection, so that no inverse is written twice."""
    low, high = 0.0, 100_000.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if to_mel(middle, scale) < mel else (low, middle)
    return low


def window_at(fields: LogMelFields, place: int) -> float:
    assert fields.window_samples is not None
    inside = place - (fields.n_fft - fields.window_samples) // 2
    period = fields.window_samples - (fields.window == "symmetric")
    return math.sin(math.pi * inside / period) ** 2 if 0 <= inside < fields.window_samples else 0.0


def sample_at(samples: Samples, place: int, edges: str) -> float:
    if 0 <= place < len(samples):
        return float(samples[place])
    return float(samples[-place if place < 0 else 2 * len(samples) - 2 - place]) if edges == "reflect" else 0.0


def defined(fields: LogMelFields, samples: Samples) -> list[list[float]]:
    """The features, one sum after the other."""
    assert fields.hop_samples is not None
    x = samples.astype(float).tolist()
    y = np.array([x[0]] + [now - fields.preemphasis * before for before, now in pairwise(x)])
    half = 0 if fields.edges == "none" else fields.n_fft // 2
    frames = 1 + (len(x) + 2 * half - fields.n_fft) // fields.hop_samples - fields.drop_last_frame
    logs = []
    for frame in range(frames):
        first = frame * fields.hop_samples - half
        cut = [window_at(fields, k) * sample_at(y, first + k, fields.edges) for k in range(fields.n_fft)]
        power = []
        for f in range(fields.n_fft // 2 + 1):
            turn = -2j * math.pi * f / fields.n_fft
            power.append(abs(sum(value * cmath.exp(turn * k) for k, value in enumerate(cut))) ** 2)
        logs.append([logarithm(fields, energy) for energy in mel_energies(fields, power)])
    return normalised(fields, logs)


def mel_energies(fields: LogMelFields, power: list[float]) -> list[float]:
    low, high = (to_mel(hz, fields.scale) for hz in (fields.low_hz, fields.high_hz or RATE / 2))
    corners = [to_hz(low + (high - low) * k / (fields.mels + 1), fields.scale) for k in range(fields.mels + 2)]
    energies = []
    for left, top, right in zip(corners, corners[1:], corners[2:], strict=False):
        energy = 0.0
        for f, value in enumerate(power):
            hz = f * RATE / fields.n_fft
            if left < hz < right:
                energy += value * ((hz - left) / (top - left) if hz <= top else (right - hz) / (right - top))
        energies.append(energy * (2 / (right - left) if fields.area == "slaney" else 1))
    return energies


def logarithm(fields: LogMelFields, energy: float) -> float:
    above = energy + fields.floor if fields.floor_is == "added" else max(energy, fields.floor)
    return math.log(above) if fields.log == "ln" else math.log10(above)


def normalised(fields: LogMelFields, logs: list[list[float]]) -> list[list[float]]:
    if fields.log == "whisper":
        loudest = max(map(max, logs))
        return [[(max(value, loudest - 8) + 4) / 4 for value in row] for row in logs]
    if fields.normalise == "none":
        return logs
    columns = []
    for column in zip(*logs, strict=True):
        mean = sum(column) / len(column)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in column) / (len(column) - 1)) + 1e-5
        divisor = deviation if fields.normalise == "mean-variance" else 1
        columns.append([(value - mean) / divisor for value in column])
    return [list(row) for row in zip(*columns, strict=True)]


def made(fields: LogMelFields, samples: Samples) -> Features:
    return LogMel(fields, RATE)(samples)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_features_are_what_their_definition_says(variant: dict[str, Any]) -> None:
    fields = LogMelFields(**SMALL | variant)
    found = made(fields, TUNE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(defined(fields, TUNE)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS[:3], ids=str)
def test_how_many_frames_there_will_be_is_known_before(variant: dict[str, Any]) -> None:
    log_mel = LogMel(LogMelFields(**SMALL | variant), RATE)
    for samples in range(log_mel.least_samples, log_mel.least_samples + 200):
        frames = log_mel.frames(samples)
        assert log_mel(np.ones(samples, np.float32)).shape == (frames, 12)
        assert log_mel.samples(frames) <= samples < log_mel.samples(frames + 1)


def test_long_sounds_are_made_in_blocks_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = LogMelFields(**SMALL)
    whole = made(fields, TUNE)
    monkeypatch.setattr("services.worker.tasks.log_mel.BLOCK_FRAMES", 7)
    np.testing.assert_allclose(made(fields, TUNE), whole, rtol=0, atol=1e-6)


def test_silence_and_the_loudest_sound_give_numbers() -> None:
    for level in (0, 2.0**31):
        for variant in VARIANTS:
            assert np.isfinite(made(LogMelFields(**SMALL | variant), np.full(1_000, level, np.float32))).all()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"hop_ms": 10.01}, "hop_ms: is no whole number of samples"),
        ({"window_ms": 50}, "n_fft: 512 samples do not hold a window of 800"),
        ({"low_hz": 9_000}, "high_hz: must lie above low_hz"),
        ({"high_hz": 8_001}, "high_hz: .* at most at 8000"),
    ],
)
def test_fields_that_do_not_fit_together_are_an_error_that_names_one(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LogMel(LogMelFields(**wrong), RATE)
