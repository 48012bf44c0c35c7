"""Log-mel features, the usual front end of models of speech and sound.

Samples x become frames of mel energies in these steps, each as the model's file says:

    pre-emphasis   y[0] = x[0], y[t] = x[t] − a·x[t−1]
    frames         frame i is y[i·hop : i·hop + n_fft], times the window; with `edges` y is first padded by n_fft/2 on
                   either side, so that frame i is centred at i·hop
    window         Hann, w[k] = ½ − ½ cos(2πk / L) for k < L = window samples (periodic), or with L − 1 for L
                   (symmetric); centred in n_fft
    power          P[f] = |Σ w·y·e^(−2πi f k / n_fft)|², f = 0 … n_fft/2
    mel bands      M[b] = Σ_f H[b, f]·P[f]: triangles whose corners lie at equal distances of mels from low_hz to
                   high_hz, linear in Hz; each as high as 1, or of area 1 (`area: slaney`: times 2 / its width in Hz)
    mel scales     htk: m = 2595 log10(1 + f/700); slaney: m = 3f/200 up to 1 kHz, and above it
                   15 + 27 ln(f/1000) / ln 6.4
    logarithm      ln or log10 of max(M, floor), or of M + floor; whisper: L = log10 max(M, floor),
                   (max(L, max L − 8) + 4) / 4
    normalisation  of each band over the feed's frames: minus the mean, and divided by the standard deviation (of
                   frames − 1) plus 1e-5

Sources: S. Young et al., The HTK Book (mel scale, pre-emphasis); M. Slaney, Auditory Toolbox, Interval Research
1998-010 (scale and area); A. Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022
(whisper). There is no dither: equal sounds have equal features.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from services.worker.repository.model_file import Frozen
from services.worker.tasks.sound import Samples

Features = npt.NDArray[np.float32]
"""[frames, mels]."""
Spectrum = npt.NDArray[np.float64]
CLOSE_TO_ZERO = 1e-5
BLOCK_FRAMES = 1_024
"""Whose spectra are made at once: what a run holds beside its features."""
LINEAR_MELS, LINEAR_HZ, LOG_STEP = 15.0, 1_000.0, np.log(6.4) / 27


class LogMelFields(Frozen):
    """`sound.log_mel` of model.yaml."""

    mels: int = Field(default=80, ge=1, le=512)
    n_fft: int = Field(default=512, ge=2, le=1 << 14)
    window_ms: float = Field(default=25.0, gt=0, le=10_000)
    hop_ms: float = Field(default=10.0, gt=0, le=10_000)
    window_samples: int | None = Field(default=None, ge=2, description="instead of window_ms")
    hop_samples: int | None = Field(default=None, ge=1, le=1 << 21, description="instead of hop_ms")
    low_hz: float = Field(default=0.0, ge=0)
    high_hz: float | None = Field(default=None, gt=0, description="None: half of the sample rate")
    scale: Literal["htk", "slaney"] = "htk"
    area: Literal["none", "slaney"] = "none"
    window: Literal["periodic", "symmetric"] = "periodic"
    edges: Literal["reflect", "zeros", "none"] = Field(
        default="reflect", description="what half a window before and behind the samples is taken for"
    )
    drop_last_frame: bool = False
    preemphasis: float = Field(default=0.0, ge=0, lt=1)
    log: Literal["ln", "log10", "whisper"] = "ln"
    floor: float = Field(default=1e-10, gt=0, lt=1)
    floor_is: Literal["least", "added"] = "least"
    normalise: Literal["none", "mean", "mean-variance"] = "none"


class LogMel:
    """Makes features from samples of one rate. It may be used on several threads at once."""

    def __init__(self, fields: LogMelFields, sample_rate: int) -> None:
        """Raises ValueError, naming the key, where the fields do not fit together."""
        self._fields = fields
        self.hop = fields.hop_samples or _whole(fields.hop_ms * sample_rate / 1_000, "hop_ms", sample_rate)
        window = fields.window_samples or int(fields.window_ms * sample_rate / 1_000)
        if not 2 <= window <= fields.n_fft:
            raise ValueError(f"n_fft: {fields.n_fft} samples do not hold a window of {window}")
        self._window = _hann(window, fields.n_fft, symmetric=fields.window == "symmetric")
        self._bands = bands(fields, sample_rate).T

    @property
    def mels(self) -> int:
        return self._fields.mels

    @property
    def least_samples(self) -> int:
        """The fewest that give a frame."""
        return self._fields.n_fft + self.hop

    def frames(self, samples: int) -> int:
        """How many frames so many samples give."""
        return 1 + (samples - self._first) // self.hop - self._fields.drop_last_frame

    def samples(self, frames: int) -> int:
        """The fewest that give so many frames."""
        return self._first + (frames - 1 + self._fields.drop_last_frame) * self.hop

    @property
    def _first(self) -> int:
        """How many samples the first frame needs."""
        return self._fields.n_fft - (0 if self._fields.edges == "none" else self._fields.n_fft // 2 * 2)

    def __call__(self, samples: Samples) -> Features:
        """Of `least_samples` or more."""
        energies = self._energies(self._pad(self._emphasise(samples)), self.frames(len(samples)))
        return self._normalise(self._logarithm(energies)).astype(np.float32)

    def _emphasise(self, samples: Samples) -> Samples:
        if not self._fields.preemphasis:
            return samples
        return np.concatenate((samples[:1], samples[1:] - np.float32(self._fields.preemphasis) * samples[:-1]))

    def _pad(self, samples: Samples) -> Samples:
        if self._fields.edges == "none":
            return samples
        return np.pad(
            samples, self._fields.n_fft // 2, mode="reflect" if self._fields.edges == "reflect" else "constant"
        )

    def _energies(self, samples: Samples, frames: int) -> Spectrum:
        """[frames, mels]."""
        cut = np.lib.stride_tricks.sliding_window_view(samples, self._fields.n_fft)[:: self.hop][:frames]
        energies = np.empty((frames, self.mels))
        for start in range(0, frames, BLOCK_FRAMES):
            spectra = np.fft.rfft(cut[start : start + BLOCK_FRAMES] * self._window)
            energies[start : start + BLOCK_FRAMES] = (spectra.real**2 + spectra.imag**2) @ self._bands
        return energies

    def _logarithm(self, energies: Spectrum) -> Spectrum:
        floor = self._fields.floor
        above = np.maximum(energies, floor) if self._fields.floor_is == "least" else energies + floor
        logs: Spectrum = np.log(above) if self._fields.log == "ln" else np.log10(above)
        if self._fields.log == "whisper":
            np.maximum(logs, logs.max() - 8, out=logs)
            logs = (logs + 4) / 4
        return logs

    def _normalise(self, logs: Spectrum) -> Spectrum:
        if self._fields.normalise == "none":
            return logs
        centred: Spectrum = logs - logs.mean(axis=0)
        if self._fields.normalise == "mean":
            return centred
        variance = (centred**2).sum(axis=0) / max(len(logs) - 1, 1)
        scaled: Spectrum = centred / (np.sqrt(variance) + CLOSE_TO_ZERO)
        return scaled


def bands(fields: LogMelFields, sample_rate: int) -> Spectrum:
    """H: [mels, n_fft/2 + 1]. A band that lies between two frequencies of the spectrum is zero, as models are
    trained with it. Raises ValueError where there is no such range."""
    high = sample_rate / 2 if fields.high_hz is None else fields.high_hz
    if not fields.low_hz < high <= sample_rate / 2:
        raise ValueError(f"high_hz: must lie above low_hz, and at most at {sample_rate / 2:g}, half of sample_rate")
    mels = np.linspace(_to_mel(fields.low_hz, fields.scale), _to_mel(high, fields.scale), fields.mels + 2)
    corners = _to_hz(mels, fields.scale)
    left, middle, right = (corners[start : start + fields.mels, np.newaxis] for start in range(3))
    frequencies = np.arange(fields.n_fft // 2 + 1) * (sample_rate / fields.n_fft)
    rising, falling = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    triangles: Spectrum = np.maximum(0, np.minimum(rising, falling))
    return triangles * (2 / (right - left)) if fields.area == "slaney" else triangles


def _to_mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return float(2595 * np.log10(1 + hz / 700))
    return float(LINEAR_MELS + np.log(hz / LINEAR_HZ) / LOG_STEP if hz >= LINEAR_HZ else hz * 3 / 200)


def _to_hz(mels: Spectrum, scale: str) -> Spectrum:
    if scale == "htk":
        return np.asarray(700 * (10 ** (mels / 2595) - 1))
    return np.where(mels >= LINEAR_MELS, LINEAR_HZ * np.exp((mels - LINEAR_MELS) * LOG_STEP), mels * 200 / 3)


def _hann(window: int, n_fft: int, *, symmetric: bool) -> npt.NDArray[Any]:
    """[n_fft], zero around the window."""
    shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - symmetric))
    before = (n_fft - window) // 2
    return np.pad(shape, (before, n_fft - window - before))


def _whole(samples: float, key: str, sample_rate: int) -> int:
    if samples < 1 or abs(samples - round(samples)) > 1e-6:
        raise ValueError(f"{key}: is no whole number of samples at {sample_rate} Hz; say hop_samples instead")
    return round(samples)
