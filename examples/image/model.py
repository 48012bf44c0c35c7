"""The architecture: a residual network (He et al. 2016) for 8×8 images, two stages of two blocks.

The pixels are normalised inside, so that callers send raw grey values.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from examples.image.norm import BatchNorm

CLASSES = 10
WIDTHS = (32, 64)
BLOCKS = 2


class Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two 3×3 convolutions beside a shortcut. The last norm starts at zero: a fresh block is its shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_convolution(inputs, outputs, 3, stride), nn.ReLU(), *_convolution(outputs, outputs, 3)
        )
        nn.init.zeros_(self.convolutions[-1].weight)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inputs, height, width] to [n, outputs, height / stride, width / stride]."""
        return torch.relu(self.convolutions(x) + self.shortcut(x))


class Network(nn.Module):  # type: ignore[misc, unused-ignore]
    """Logits [n, 10] of images [n, 1, 8, 8] with grey values 0..16; `mean` and `deviation` are of all their pixels."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))
        self.stem = nn.Sequential(*_convolution(1, WIDTHS[0], 3), nn.ReLU())
        blocks, inputs = [], WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for index in range(BLOCKS):
                blocks.append(Block(inputs, width, stride=2 if stage > 0 and index == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        """The logits."""
        features = self.blocks(self.stem((x - self.mean) / self.deviation))
        return self.head(features.mean((2, 3)))


class Classifier(nn.Module):  # type: ignore[misc, unused-ignore]
    """What is exported: the probabilities [n, 10] and the most probable label [n] (int64) of images [n, 1, 8, 8]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities and labels."""
        logits = self.network(x)
        return logits.softmax(1), logits.argmax(1)


def parameters(network: nn.Module) -> int:
    """The number of trained weights."""
    return sum(parameter.numel() for parameter in network.parameters())


def save(network: Network, path: Path) -> None:
    """Write the weights and the buffers."""
    torch.save(network.state_dict(), path)


def load(path: Path) -> Network:
    """The network saved at `path`, ready to be evaluated. Raises FileNotFoundError without one."""
    network = Network(0.0, 1.0)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval()
    return network


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return convolution, BatchNorm(outputs)
