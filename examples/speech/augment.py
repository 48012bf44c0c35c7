"""Augmentation: the same utterance is never heard twice alike.

    speed   faster or slower, which shifts the pitch too (T. Ko et al., Audio augmentation for speech recognition, 2015)
    room    an exponentially decaying echo, as a room without furniture has
    noise   of a spectrum between white and brown, at some signal-to-noise ratio
    masks   of frames and of mel bands (D. S. Park et al., SpecAugment, 2019), on the features

Each takes its randomness from the generator that it is given.
"""

import numpy as np
import numpy.typing as npt

from examples.speech.features import SAMPLE_RATE

Sound = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]
SPEEDS = (0.85, 1.15)
GAIN = (0.1, 0.9)
SNR_DB = (5.0, 25.0)
DECAY_S = (0.05, 0.4)
"""In which an echo falls by 60 dB."""
ECHO = (0.1, 0.6)
"""How loud it is beside the sound itself."""
TILT = (0.0, 2.0)
"""Noise's power falls with the frequency to this power: 0 is white, 2 brown."""
ROOM_SHARE, NOISE_SHARE = 0.5, 0.8
MASKED_FRAMES, MASKED_MELS, MASKS = 12, 6, 2
"""A mask is at most so wide; so many of each."""


def faster(sound: Sound, factor: float) -> Sound:
    """At `factor` times the speed, by linear interpolation."""
    places = np.arange(int(len(sound) / factor)) * factor
    return np.asarray(np.interp(places, np.arange(len(sound)), sound), np.float32)


def in_room(sound: Sound, random: np.random.Generator) -> Sound:
    """As long and as loud as it was."""
    decay = random.uniform(*DECAY_S)
    time = np.arange(int(decay * SAMPLE_RATE)) / SAMPLE_RATE
    echo = random.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    echo *= random.uniform(*ECHO) / np.sqrt((echo**2).sum())
    echo[0] = 1
    size = 1 << (len(sound) + len(echo)).bit_length()
    heard = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(echo, size), size)[: len(sound)]
    return np.asarray(heard * (_loudness(sound) / max(_loudness(heard), 1e-9)), np.float32)


def with_noise(sound: Sound, random: np.random.Generator, snr_db: tuple[float, float]) -> Sound:
    """Noise is on all of it; the ratio is that of the mean powers."""
    size = 1 << len(sound).bit_length()
    spectrum = np.fft.rfft(random.standard_normal(size))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-random.uniform(*TILT) / 2)
    noise = np.fft.irfft(spectrum, size)[: len(sound)]
    level = _loudness(sound) * 10 ** (-random.uniform(*snr_db) / 20)
    return np.asarray(sound + noise * (level / max(_loudness(noise), 1e-9)), np.float32)


def placed(sound: Sound, length: int, random: np.random.Generator) -> Sound:
    """Somewhere in `length` samples of silence; a longer sound is an error of the caller's."""
    before = int(random.integers(0, length - len(sound) + 1))
    return np.pad(sound, (before, length - len(sound) - before))


def spoilt(sound: Sound, length: int, random: np.random.Generator) -> Sound:
    """All of it: [length]."""
    heard = placed(sound * np.float32(random.uniform(*GAIN)), length, random)
    if random.random() < ROOM_SHARE:
        heard = in_room(heard, random)
    return with_noise(heard, random, SNR_DB) if random.random() < NOISE_SHARE else heard


def masked(features: Features, random: np.random.Generator) -> Features:
    """[frames, mels], with masks of their mean."""
    frames, mels = features.shape
    covered, mean = features.copy(), features.mean()
    for _ in range(MASKS):
        width, start = random.integers(0, MASKED_FRAMES + 1), random.integers(0, frames)
        covered[start : start + width] = mean
        width, start = random.integers(0, MASKED_MELS + 1), random.integers(0, mels)
        covered[:, start : start + width] = mean
    return covered


def _loudness(sound: npt.NDArray[np.floating]) -> float:
    return float(np.sqrt((sound.astype(np.float64) ** 2).mean()))
