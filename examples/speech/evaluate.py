"""Transcripts by ONNX Runtime alone: what the service is held against."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from examples.speech import score
from examples.speech.corpus import CLEAN, NOISY, Labelled
from examples.speech.features import SAMPLE_RATE, log_mel
from examples.speech.score import Score
from services.worker.tasks import sound

Features = npt.NDArray[np.float32]
LONGEST_S = 60.0


class Graph:
    """`features` [batch, frames, mels] in, `logits` [batch, frames / 4, labels] out."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, features: Features) -> Features:
        """The logits."""
        logits: Features = self.session.run(["logits"], {"features": features})[0]
        return logits

    def transcripts(self, features: Sequence[Features]) -> list[str]:
        """Of features [frames, mels] of each sound, which are run alone."""
        return [score.transcript(self.run(one[None])[0]) for one in features]


def heard(sounds: Sequence[Labelled]) -> list[Features]:
    """The features of the sounds' files, decoded as the worker does it."""
    front_end = log_mel()
    return [
        front_end(np.concatenate([*sound.samples(one.path.read_bytes(), SAMPLE_RATE, LONGEST_S)])) for one in sounds
    ]


def scores(sounds: Sequence[Labelled], transcripts: Sequence[str]) -> dict[str, Score]:
    """Of all sounds, and of those of each condition."""
    chosen = {"all": range(len(sounds))} | {
        condition: [index for index, one in enumerate(sounds) if one.condition == condition]
        for condition in (CLEAN, NOISY)
    }
    return {
        name: score.score([sounds[index].text for index in indices], [transcripts[index] for index in indices])
        for name, indices in chosen.items()
    }
