"""What a graph of sound takes: model.yaml's `sound` → `SoundFields`, and with it samples → `FrontEnd` → inputs.

    sound:
      sample_rate: 16000
      features: log-mel            # or waveform
      log_mel: {mels: 80, n_fft: 400}
      layout: mels-frames

A graph whose number of frames is fixed gets samples padded with silence to that many. Every other one gets sounds as
long as they are; those of equal length share a run. `batching.buckets` for the frames would pad features with what is
no sound; only a graph that is told each row's length can leave that out, so buckets are refused for any other.
Normalisation sees what one run gets: of a long sound, one window.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from services.worker.batch.graph import Array, Feed, Port, Ports
from services.worker.repository.model_file import Frozen, problems
from services.worker.tasks import takes_one
from services.worker.tasks.log_mel import LogMel, LogMelFields
from services.worker.tasks.sound import Samples

LEAST_S = 0.1
"""Shorter sounds are padded with silence to it: convolutions without padding need some."""
MOST_S = 3_600
"""Of sound in one run."""
LONGEST_S = 7 * 24 * 3_600
"""Of a whole sound."""
VARIANCE_FLOOR = 1e-7
FLOATS, COUNTS = ("FP32", "FP16"), ("INT64", "INT32")


class SoundFields(Frozen):
    """`sound` of model.yaml. Inputs and outputs that are not named are the graph's only ones of their type."""

    sample_rate: int = Field(default=16_000, ge=1_000, le=192_000)
    features: Literal["waveform", "log-mel"] = "waveform"
    log_mel: LogMelFields = LogMelFields()
    layout: Literal["frames-mels", "mels-frames"] = "frames-mels"
    scale: float = Field(default=1.0, gt=0, description="what samples in [-1, 1] are multiplied by")
    normalise: bool = Field(default=False, description="whether a waveform gets mean 0 and variance 1")
    input: str | None = None
    length: str | None = Field(default=None, description="input that is told each row's samples or frames")
    output: str | None = Field(default=None, description="of a speech model, which has the scores")
    most_s: float = Field(default=3_600, gt=0, le=LONGEST_S, description="longer sounds are refused")
    seconds: float | None = Field(
        default=None, gt=0, le=MOST_S, description="what a sound to be labelled is cut or padded to; None: only cut"
    )
    window_s: float = Field(default=20, gt=0, le=MOST_S, description="what is run at once of a longer sound")
    overlap_s: float = Field(default=2, gt=0, le=MOST_S, description="of a window, what is only context at either side")
    stride: int | None = Field(
        default=None, ge=1, description="samples or frames of input for each frame of output; None: found out"
    )
    blank: int | str = Field(default=0, description="the label that is no symbol, or its name")
    word_separator: str = Field(default="|", description="the label that is a space")
    language: str | None = Field(default=None, description="BCP-47: the one that the model transcribes")


def read_fields(config: Mapping[str, Any]) -> SoundFields:
    """Of model.yaml's content. Raises ValueError, naming the key."""
    try:
        return SoundFields.model_validate(config["sound"] or {})
    except ValidationError as error:
        raise ValueError(f"sound.{problems(error).replace('; ', '; sound.')}") from None


def find(ports: tuple[Port, ...], name: str | None, datatypes: tuple[str, ...], key: str) -> Port:
    """The port of that name, or the only one of these types. Raises ValueError."""
    found = [port for port in ports if port.datatype in datatypes and name in (None, port.name)]
    if len(found) != 1:
        names = ", ".join(port.name for port in ports if port.datatype in datatypes) or "none"
        raise ValueError(f"sound.{key}: name one of the graph's {' and '.join(datatypes)}: {names}")
    return found[0]


class FrontEnd:
    """Makes a graph's inputs. It may be used on several threads at once."""

    def __init__(self, fields: SoundFields, ports: Ports, buckets: Mapping[str, Any]) -> None:
        """`buckets`: of `batching`. Raises ValueError, naming the key, where fields and graph do not fit together."""
        self._fields = fields
        self._log_mel = _log_mel(fields)
        self._input = find(ports.inputs, fields.input, FLOATS, "input")
        self._length = find(ports.inputs, fields.length, COUNTS, "length") if fields.length else None
        if others := [port.name for port in ports.inputs if port not in (self._input, self._length)]:
            raise ValueError(f"sound: the graph takes {others[0]} too, which nothing here makes")
        self._check_shape()
        size = self._input.dims[self._frames_axis]
        self.fixed = size if isinstance(size, int) else None
        """How many frames the graph takes, where it takes no other number."""
        self.bucketed = size in buckets
        if self.fixed is not None and not self._fewest <= self.samples(self.fixed) <= MOST_S * fields.sample_rate:
            raise ValueError(f"sound.input: {self._input.name} takes {size} frames, which no sound here can be")
        if self.bucketed and self._length is None:
            raise ValueError(f"batching.buckets.{size}: pads with what is no sound; the graph is not told the length")

    @property
    def hop(self) -> int:
        """Samples from one frame of the input to the next; a waveform's frames are its samples."""
        return 1 if self._log_mel is None else self._log_mel.hop

    def frames(self, samples: int) -> int:
        """How many of the input so many samples are, or what they are padded to where they are too few."""
        samples = max(samples, self._least)
        return samples if self._log_mel is None else self._log_mel.frames(samples)

    def samples(self, frames: int) -> int:
        """The fewest that are so many frames."""
        return frames if self._log_mel is None else self._log_mel.samples(frames)

    def feed(self, samples: Samples, least: int = 0) -> Feed:
        """One row of each of the graph's inputs; shorter sounds are padded with silence to `least`. A waveform is
        normalised before that."""
        frames = self.frames(len(samples))
        row = self._features(samples * np.float32(self._fields.scale), max(least, self._least))
        feed: Feed = {self._input.name: row.reshape(1, *self._singles, *row.shape).astype(self._input.dtype)}
        if self._length is not None:
            feed[self._length.name] = np.array([frames], self._length.dtype)
        return feed

    def sizes(self, feed: Feed) -> Mapping[str, int]:
        """Of the graph's dimension that counts the input's frames, if it has a name."""
        name = self._input.dims[self._frames_axis]
        return {name: feed[self._input.name].shape[self._frames_axis]} if isinstance(name, str) else {}

    @property
    def _fewest(self) -> int:
        """Samples that make a frame at all."""
        return 1 if self._log_mel is None else self._log_mel.least_samples

    @property
    def _least(self) -> int:
        """Samples that shorter sounds are padded to, if nothing else says how long they are to be."""
        least = int(LEAST_S * self._fields.sample_rate) if self.fixed is None else 0
        return max(least, self._fewest)

    @property
    def _frames_axis(self) -> int:
        return -2 if self._log_mel is not None and self._fields.layout == "frames-mels" else -1

    @property
    def _singles(self) -> tuple[int, ...]:
        """Axes of size 1 between the rows and the features."""
        return (1,) * (len(self._input.dims) - (2 if self._log_mel is None else 3))

    def _features(self, samples: Samples, least: int) -> Array:
        least = least if self.fixed is None else self.samples(self.fixed)
        if self._log_mel is None:
            return _padded(_normalise(samples) if self._fields.normalise else samples, least)
        features = self._log_mel(_padded(samples, least))
        return features if self._fields.layout == "frames-mels" else features.T

    def _check_shape(self) -> None:
        """Raises ValueError."""
        name, dims, axes = self._input.name, self._input.dims, 2 if self._log_mel is None else 3
        ones = dims[1 : 1 - axes]
        if len(dims) not in (axes, axes + 1) or not takes_one(self._input) or any(dim != 1 for dim in ones):
            wanted = "[rows, samples]" if self._log_mel is None else "[rows, frames, mels]"
            raise ValueError(f"sound.features: {name} has the shape {list(dims)}, and {wanted} is made")
        mels = dims[-3 - self._frames_axis]
        if self._log_mel is not None and isinstance(mels, int) and mels != self._log_mel.mels:
            raise ValueError(f"sound.log_mel.mels: {name} takes {mels} in the layout {self._fields.layout}")
        if self._length is not None and len(self._length.dims) != 1:
            raise ValueError(f"sound.length: {self._length.name} must have one dimension, the rows")


def _log_mel(fields: SoundFields) -> LogMel | None:
    if fields.features == "waveform":
        return None
    try:
        return LogMel(fields.log_mel, fields.sample_rate)
    except ValueError as error:
        raise ValueError(f"sound.log_mel.{error}") from None


def _normalise(samples: Samples) -> Samples:
    centred = samples - samples.mean(dtype=np.float64)
    return np.asarray(centred / np.sqrt(centred.var() + VARIANCE_FLOOR), np.float32)


def _padded(samples: Samples, least: int) -> Samples:
    return np.pad(samples, (0, max(least - len(samples), 0)))
