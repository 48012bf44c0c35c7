"""How much of the machine a training used, and what it can use."""

from typing import TypeVar

import torch

from examples.speed import Speed, matmul_peak_flops, step_flops
from examples.training.history import History
from examples.training.loop import Recipe, Task, autocast

PEAK_S = 1.0
Batch = TypeVar("Batch")


def pace(task: Task[Batch], plan: Recipe, history: History, device: str) -> Speed:
    """Of the training that has been, waiting for its rows included; the peak is that of this process's threads."""
    network, batch = task.network.to(device), task.batch(0)

    def step() -> None:
        with autocast(device, plan.precision):
            loss = task.loss(network, batch)
        loss.backward()

    dtype = torch.bfloat16 if plan.precision == "bfloat16" else torch.float32
    return Speed(
        amount=history.rate,
        unit=task.unit,
        flops=step_flops(step) / task.amount(batch) * history.rate,
        peak=matmul_peak_flops(PEAK_S, dtype, device),
    )


def device() -> str:
    """What one process trains on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16() -> bool:
    """Whether the machine multiplies bfloat16 faster than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
