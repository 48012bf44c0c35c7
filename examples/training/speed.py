"""How fast training is beside what the machine could do: the operations of a step over those of a large product."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from examples.training.history import History
from examples.training.loop import Recipe, Task, autocast

SIDE = 2_048
SIDE_GPU = 8_192
PEAK_S = 1.0
Batch = TypeVar("Batch")


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


def speed(task: Task[Batch], plan: Recipe, history: History) -> Speed:
    """Of the training that has been, waiting for its rows included; the peak is that of all the machine's cores."""
    where = device()
    network, batch = task.network.to(where), task.batch(0)

    def step() -> None:
        with autocast(where, plan.precision):
            loss = task.loss(network, batch)
        loss.backward()

    dtype = torch.bfloat16 if plan.precision == "bfloat16" else torch.float32
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        peak = matmul_peak_flops(PEAK_S, dtype, where)
    finally:
        torch.set_num_threads(threads)
    flops = step_flops(step) / task.amount(batch) * history.rate
    return Speed(amount=history.rate, unit=task.unit, flops=flops, peak=peak)


def device() -> str:
    """What one process trains on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16() -> bool:
    """Whether the machine multiplies bfloat16 faster than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


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
