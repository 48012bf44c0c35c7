"""The loop: AdamW (Loshchilov and Hutter 2019), linear warm-up and a cosine to zero, gradients of bounded norm."""

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import nn

from examples.training import checkpoint
from examples.training import history as histories
from examples.training.history import History
from examples.training.processes import Group

CHECKPOINT, HISTORY = "checkpoint.pt", "history.json"
Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides the trained weights, beside the data. `precision` is "bfloat16" or "float32"."""

    steps: int
    batch: int
    warmup_steps: int
    peak_rate: float
    weight_decay: float
    clip_norm: float = 1.0
    precision: str = "float32"
    curve_every: int = 100
    seed: int = 1

    def rate(self, step: int) -> float:
        """The factor on the learning rate at `step`, in 0..1."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def planned(
    steps: int, *, batch: int, peak_rate: float, weight_decay: float, bfloat16: bool, warmup_steps: int = 100
) -> Recipe:
    """The recipe of a run of any length: a short one warms up over a quarter of it, and is validated five times."""
    return Recipe(
        steps=steps,
        batch=batch,
        warmup_steps=min(warmup_steps, steps // 4 + 1),
        peak_rate=peak_rate,
        weight_decay=weight_decay,
        precision="bfloat16" if bfloat16 else "float32",
        curve_every=max(1, min(100, steps // 5)),
    )


class Task(Protocol[Batch]):
    """What is learnt. `unit` names what a batch's amount counts."""

    network: nn.Module
    unit: str

    def batch(self, step: int) -> Batch:
        """This process's rows of a step, the same in every run; it is made on another thread, ahead of its use."""

    def amount(self, batch: Batch) -> float: ...

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """The rows' mean."""

    def validate(self) -> dict[str, float]:
        """Measures by name, of the network that `eval()` was called on."""


class Loop(Generic[Batch]):
    """One run. Every process of the group has one."""

    def __init__(self, task: Task[Batch], recipe: Recipe, work: Path, group: Group, *, resume: bool) -> None:
        """With `resume` goes on from the checkpoint in `work`; raises FileNotFoundError when there is none, and
        RuntimeError when another recipe made it."""
        self._task, self._recipe, self._work, self._group = task, recipe, work, group
        self._network = task.network.to(group.device)
        self._optimizer = _optimizer(self._network, recipe)
        self.history = self._restore() if resume else History()
        self._parallel = group.parallel(self._network)
        self._console = Console(quiet=not group.first)

    def run(self, *, save_every_s: float = 20) -> History:
        """The steps that are left; checkpoints and the history go to the work folder.

        Raises FloatingPointError where the loss is not finite."""
        history, saved = self.history, time.monotonic()
        self._work.mkdir(parents=True, exist_ok=True)
        with _progress(self._console) as progress, ThreadPoolExecutor(1) as ahead:
            bar = progress.add_task("train", total=self._recipe.steps, completed=history.steps, status="")
            coming = ahead.submit(self._task.batch, history.steps)
            while history.steps < self._recipe.steps:
                coming = self._advance(coming, ahead)
                self._show(progress, bar)
                last = history.steps == self._recipe.steps
                if last or history.steps % self._recipe.curve_every == 0:
                    self._validate()
                if last or time.monotonic() - saved > save_every_s:
                    self._save()
                    saved = time.monotonic()
            coming.cancel()
        self._network.eval()
        return history

    def _advance(self, coming: "Future[Batch]", ahead: ThreadPoolExecutor) -> "Future[Batch]":
        """One step; answers the next one's rows, which are being made."""
        started = time.monotonic()
        batch = coming.result()
        following = ahead.submit(self._task.batch, self.history.steps + 1)
        self.history.losses.append(self._step(batch))
        self.history.steps += 1
        self.history.amount += self._task.amount(batch) * self._group.processes
        self.history.seconds += time.monotonic() - started
        return following

    def _step(self, batch: Batch) -> float:
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = self._recipe.peak_rate * self._recipe.rate(self.history.steps)
        self._network.train()
        with autocast(self._group.device, self._recipe.precision):
            loss = self._task.loss(self._parallel, batch)
        value = self._group.mean(loss.item())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss at step {self.history.steps} is {value}")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), self._recipe.clip_norm)
        self._optimizer.step()
        return value

    def _validate(self) -> None:
        if not self._group.first:
            return
        self._network.eval()
        with torch.inference_mode():
            measures = self._task.validate()
        history = self.history
        history.curve.append({"step": history.steps, "loss": history.losses[-1], **measures})
        found = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
        self._console.print(f"step {history.steps}: loss {history.losses[-1]:.3f}, {found}, {history.seconds:.0f} s")

    def _show(self, progress: Progress, bar: TaskID) -> None:
        status = f"loss {self.history.losses[-1]:.3f}  {self.history.rate:,.0f} {self._task.unit}/s"
        progress.update(bar, completed=self.history.steps, status=status)

    def _save(self) -> None:
        if not self._group.first:
            return
        record = {"recipe": asdict(self._recipe), "history": asdict(self.history)}
        state = {"network": self._network.state_dict(), "optimizer": self._optimizer.state_dict(), **record}
        checkpoint.save(self._work / CHECKPOINT, state)
        histories.save(self.history, asdict(self._recipe), self._work / HISTORY)

    def _restore(self) -> History:
        state = checkpoint.load(self._work / CHECKPOINT, asdict(self._recipe))
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        return History(**state["history"])


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Matrices in bfloat16, weights and sums in float32; with "float32" nothing."""
    if precision == "float32":
        return nullcontext()
    context: AbstractContextManager[Any] = torch.autocast(device.split(":")[0], torch.bfloat16)
    return context


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Vectors (biases, norms, scales) do not decay."""
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    vectors = [weight for weight in network.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[status]}"), console=console)
