"""Training: AdamW (Loshchilov and Hutter 2019); the learning rate rises linearly, then falls to zero along a cosine.

A step's images and their augmentation depend on the seed and the step alone, so a run that was stopped and resumed
gives the weights of one that was not.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.functional import cross_entropy

from examples.image.augment import augment
from examples.image.data import Digits
from examples.image.model import Network, parameters

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides the trained weights, beside the images and their augmentation."""

    steps: int = 2000
    batch: int = 64
    warmup_steps: int = 100
    peak_rate: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    clip_norm: float = 1.0
    curve_every: int = 100
    seed: int = 1

    def rate(self, step: int) -> float:
        """The factor on the learning rate at `step`, in 0..1."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(slots=True, kw_only=True)
class History:
    """What a run has measured so far.

    `seconds` counts training only and adds up over resumed runs. `curve` has (step, loss of the step's images,
    validation loss, validation accuracy); it is for reporting, nothing is chosen by it.
    """

    steps: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)


def train(
    digits: Digits, validation: Digits, recipe: Recipe, work: Path, *, resume: bool, save_every_s: float = 10
) -> Network:
    """Train on `digits` and return the network; checkpoints and `history.json` go to `work`.

    With `resume`, continues the checkpoint in `work`; raises FileNotFoundError when there is none, and RuntimeError
    when another recipe made it.
    """
    torch.manual_seed(recipe.seed)
    network = Network(float(digits.x.mean()), float(digits.x.std()))
    optimizer = _optimizer(network, recipe)
    history = _restore(work / CHECKPOINT, network, optimizer, recipe) if resume else History()
    work.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.print(f"{parameters(network):,} weights, {len(digits):,} images, steps {history.steps}..{recipe.steps}")
    saved = time.monotonic()
    with _progress(console) as progress:
        task = progress.add_task("train", total=recipe.steps, completed=history.steps, status="")
        while history.steps < recipe.steps:
            started = time.monotonic()
            loss = _step(network, optimizer, batch(digits, recipe, history.steps), recipe, history.steps)
            history.steps += 1
            history.seconds += time.monotonic() - started
            if history.steps % recipe.curve_every == 0 or history.steps == recipe.steps:
                validation_loss, accuracy = validate(network, validation)
                history.curve.append((history.steps, loss, validation_loss, accuracy))
                console.print(f"step {history.steps}: loss {loss:.3f}, validation {validation_loss:.3f} {accuracy:.1%}")
            progress.update(task, completed=history.steps, status=f"loss {loss:.3f}")
            if time.monotonic() - saved > save_every_s or history.steps == recipe.steps:
                _save(work, network, optimizer, history, recipe)
                saved = time.monotonic()
    network.eval()
    return network


def batch(digits: Digits, recipe: Recipe, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The augmented images [batch, 1, 8, 8] and the labels [batch] of `step`, the same in every run with this seed."""
    random = np.random.default_rng((recipe.seed, step))
    picked = digits.pick(random.choice(len(digits), recipe.batch, replace=False))
    generator = torch.Generator().manual_seed(int(random.integers(2**62)))
    return augment(torch.from_numpy(picked.x).float(), generator), torch.from_numpy(picked.label)


def validate(network: Network, validation: Digits) -> tuple[float, float]:
    """Mean loss and accuracy on images that are not augmented."""
    network.eval()
    label = torch.from_numpy(validation.label)
    with torch.no_grad():
        logits = network(torch.from_numpy(validation.x).float())
    network.train()
    return cross_entropy(logits, label).item(), (logits.argmax(1) == label).float().mean().item()


def _step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    rows: tuple[torch.Tensor, torch.Tensor],
    recipe: Recipe,
    step: int,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = recipe.peak_rate * recipe.rate(step)
    x, label = rows
    loss = cross_entropy(network(x), label, label_smoothing=recipe.label_smoothing)
    value: float = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss at step {step} is {value}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
    optimizer.step()
    return value


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    vectors = [weight for weight in network.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate)


def _save(work: Path, network: Network, optimizer: torch.optim.Optimizer, history: History, recipe: Recipe) -> None:
    record = {"recipe": asdict(recipe), **asdict(history)}
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), **record}
    unfinished = work / f"{CHECKPOINT}.new"
    torch.save(state, unfinished)
    unfinished.replace(work / CHECKPOINT)
    (work / "history.json").write_text(json.dumps(record, indent=1))


def _restore(checkpoint: Path, network: Network, optimizer: torch.optim.Optimizer, recipe: Recipe) -> History:
    if not checkpoint.exists():
        raise FileNotFoundError(f"nothing to resume: {checkpoint} does not exist")
    state = torch.load(checkpoint, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise RuntimeError(f"{checkpoint} was made with another recipe: {state['recipe']}")
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return History(steps=state["steps"], seconds=state["seconds"], curve=state["curve"])


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[status]}"), console=console)
