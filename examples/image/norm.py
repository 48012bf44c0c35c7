"""Batch norm (Ioffe and Szegedy 2015) whose batch is that of all processes that train: two learn what one does.

PyTorch's own `SyncBatchNorm` is for GPUs alone.
"""

from typing import Any

import torch
from torch import distributed, nn


class BatchNorm(nn.BatchNorm2d):  # type: ignore[misc, unused-ignore]
    """Of one process, and where nothing is trained, the same as `nn.BatchNorm2d`. All processes have equally many rows,
    and run the norms of a network in the same order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, height, width] to the same."""
        if not (self.training and distributed.is_initialized() and distributed.get_world_size() > 1):
            normal: torch.Tensor = super().forward(x)
            return normal
        wide = x.float()
        processes = distributed.get_world_size()
        own = torch.stack([wide.mean((0, 2, 3)), wide.square().mean((0, 2, 3))])
        mean, square = Sum.apply(own) / processes
        variance = (square - mean.square()).clamp(min=0)
        self._follow(mean.detach(), variance.detach(), processes * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (wide * _column(scale) + _column(self.bias - mean * scale)).to(x.dtype)

    def _follow(self, mean: torch.Tensor, variance: torch.Tensor, values: int) -> None:
        """The running moments: a step towards those of these values; the variance's is the unbiased one."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * values / (values - 1), self.momentum)
        self.num_batches_tracked.add_(1)


class Sum(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Over all processes, of a tensor of the same shape; and so are its gradients, since each one's loss depends on
    every summand."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _summed(gradients[0])


def _summed(x: torch.Tensor) -> torch.Tensor:
    total = x.clone()
    distributed.all_reduce(total)
    return total


def _column(channels: torch.Tensor) -> torch.Tensor:
    return channels[:, None, None]
