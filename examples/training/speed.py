"""How fast training is beside what the machine could do: the operations of a step over those of a large product."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

SIDE = 2_048
SIDE_GPU = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """`amount` a second of some unit, which took `flops` a second of the `peak`."""

    amount: float
    unit: str
    flops: float
    peak: float

    @property
    def share(self) -> float:
        """Of the peak, 0..1."""
        return self.flops / self.peak

    def __str__(self) -> str:
        found = f"{self.flops / 1e9:,.0f} of {self.peak / 1e9:,.0f} GFLOP/s, {self.share:.1%} of the matmul peak"
        return f"{self.amount:,.0f} {self.unit}/s, {found}"


def matmul_peak_flops(seconds: float, dtype: torch.dtype, device: str = "cpu") -> float:
    """Operations a second of square products of this type, at the threads that PyTorch has: the fastest of those that
    fit into `seconds`. A multiplication and an addition are two."""
    side = SIDE if device == "cpu" else SIDE_GPU
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    fastest, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # a GPU's is finished when it is read
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * side**3 / fastest


def step_flops(step: Callable[[], Any]) -> float:
    """Operations of the products and convolutions that `step` runs, forwards and backwards."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())
