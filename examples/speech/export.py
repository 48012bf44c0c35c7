"""From trained weights to the model's folder, by `millrace export`, which compares the graph with PyTorch."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from examples.speech.evaluate import Features
from examples.speech.features import MELS, SOUND
from examples.speech.model import Network
from examples.speech.score import SYMBOLS
from millrace.exporting.order import Order
from millrace.exporting.run import Published
from millrace.exporting.run import export as make
from millrace.exporting.sources.torch import Torch
from millrace.exporting.stages import Stages

KEYS = {
    "description": "A small convolutional network with CTC that hears spoken English digits of synthetic voices.",
    "licence": "Apache-2.0",
    "sound": SOUND,
    "batching": {"max_rows": 16},
}
SAMPLES = "samples.npz"
"""In the work folder: features of some training sounds, as the graph takes them."""
LEAST_FRAMES, MOST_FRAMES = 8, 8_192


class Heard(nn.Module):  # type: ignore[misc, unused-ignore]
    """The network with a name for its output."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.network(features)}


def ship(network: Network, features: Sequence[Features], work: Path, version: Path, stages: Stages) -> Published:
    """In place of a version that is there. Raises ValueError where the graph is too far from PyTorch, on random
    features, or on those of some sounds, each [frames, mels], which are cut to the shortest."""
    samples, labels = work / SAMPLES, work / "labels.txt"
    np.savez(samples, features=np.stack([one[: min(map(len, features))] for one in features]))
    labels.write_text("".join(f"{symbol}\n" for symbol in SYMBOLS))
    shutil.rmtree(version, ignore_errors=True)
    order = Order(
        source="examples.speech",
        out=version,
        samples=samples,
        labels=labels,
        task="speech-recognition",
        keys=KEYS,
    )
    frames = torch.export.Dim("frames", min=LEAST_FRAMES, max=MOST_FRAMES)
    shapes = {"features": {0: torch.export.Dim("batch"), 1: frames}}
    return make(order, stages, Torch((Heard(network), torch.zeros(2, 64, MELS), shapes)))


def describe(original: Path, folder: Path, precision: str) -> None:
    """Write what a version with another graph has beside it: what the original has."""
    described = yaml.safe_load((original / "model.yaml").read_text())
    described["graphs"] = {"cpu": {"path": "model.onnx", "precision": precision}}
    (folder / "model.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    shutil.copyfile(original / "labels.txt", folder / "labels.txt")
