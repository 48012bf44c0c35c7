"""The architecture: convolutions over time with a CTC head, after ConvNeXt (Z. Liu et al. 2022) and QuartzNet (S.
Kriman et al. 2020), whose depthwise convolutions see time and whose matrices mix channels.

    features ─► (x − mean) / deviation ─► 2 convolutions of stride 2 ─► BLOCKS × [depthwise, norm, expand, project]
             ─► norm ─► head

A score depends on less than 1.4 s of sound on either side, which is less than the overlap of the worker's windows: a
long sound's text is the same wherever it is cut. Every norm is of one frame, so that neither a batch's other rows nor
the number of processes that train change a result.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from examples.speech.features import MELS
from examples.speech.score import SYMBOLS

WIDTH, BLOCKS, KERNEL, EXPANSION = 96, 8, 9, 3


class Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """[rows, frames, WIDTH] to the same. `scale` starts small: a fresh block is nearly its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.expand = nn.Linear(WIDTH, EXPANSION * WIDTH)
        self.project = nn.Linear(EXPANSION * WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.full((WIDTH,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.norm(self.time(x.transpose(1, 2)).transpose(1, 2))
        return x + self.scale * self.project(torch.nn.functional.gelu(self.expand(seen)))


class Network(nn.Module):  # type: ignore[misc, unused-ignore]
    """Logits [rows, ⌈frames / 4⌉, labels] of features [rows, frames, MELS], normalised by a `mean` and `deviation`."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))
        self.stem = nn.Sequential(
            nn.Conv1d(MELS, WIDTH, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(WIDTH, WIDTH, 5, stride=2, padding=2),
        )
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(SYMBOLS))

    def forward(self, features: torch.Tensor) -> Any:
        """The logits."""
        normal = (features - self.mean) / self.deviation
        return self.head(self.norm(self.blocks(self.stem(normal.transpose(1, 2)).transpose(1, 2))))


def parameters(network: nn.Module) -> int:
    """The number of trained weights."""
    return sum(parameter.numel() for parameter in network.parameters())


def save(network: Network, path: Path) -> None:
    """Write the weights and the buffers."""
    torch.save(network.state_dict(), path)


def load(path: Path) -> Network:
    """The network saved at `path`, ready to be evaluated. Raises FileNotFoundError without one."""
    network = Network(0.0, 1.0)
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    return network
