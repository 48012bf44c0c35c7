"""Training: cross entropy of smoothed labels (Szegedy et al. 2016), images that are augmented anew in each step.

A step's images and their augmentation depend on the seed and the step alone, so a run that was stopped and resumed
gives the weights of one that was not.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from examples.image.augment import augment
from examples.image.data import Digits
from examples.image.model import Network, save
from examples.training.history import History
from examples.training.loop import Loop, Recipe, planned
from examples.training.processes import Group

LABEL_SMOOTHING = 0.05


def recipe(steps: int, *, bfloat16: bool) -> Recipe:
    """The one of the model that the repository has is that of 2,000 steps in float32."""
    return planned(steps, batch=64, peak_rate=3e-3, weight_decay=0.05, bfloat16=bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """`x` [rows, 1, 8, 8], augmented; `label` [rows]."""

    x: torch.Tensor
    label: torch.Tensor


class Reading:
    """Implements `Task`."""

    unit = "images"

    def __init__(self, digits: Digits, validation: Digits, plan: Recipe, group: Group) -> None:
        torch.manual_seed(plan.seed)
        self._digits, self._validation, self._recipe, self._group = digits, validation, plan, group
        self.network = Network(float(digits.x.mean()), float(digits.x.std()))

    def batch(self, step: int) -> Rows:
        """Every process augments all of a step's rows, which costs little, and keeps its own."""
        random = np.random.default_rng((self._recipe.seed, step))
        picked = self._digits.pick(random.choice(len(self._digits), self._recipe.batch, replace=False))
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        x = augment(torch.from_numpy(picked.x).float(), generator)
        share = list(self._group.share(self._recipe.batch))
        return Rows(x=x[share], label=torch.from_numpy(picked.label)[share])

    def amount(self, batch: Rows) -> float:
        return float(len(batch.x))

    def loss(self, network: nn.Module, batch: Rows) -> torch.Tensor:
        logits = network(batch.x.to(self._group.device))
        return cross_entropy(logits.float(), batch.label.to(logits.device), label_smoothing=LABEL_SMOOTHING)

    def validate(self) -> dict[str, float]:
        """Loss and accuracy of images that are not augmented."""
        logits = self.network(torch.from_numpy(self._validation.x).float().to(self._group.device)).float().cpu()
        label = torch.from_numpy(self._validation.label)
        accuracy = (logits.argmax(1) == label).float().mean().item()
        return {"validation_loss": cross_entropy(logits, label).item(), "accuracy": accuracy}


def train(
    group: Group, digits: Digits, validation: Digits, plan: Recipe, work: Path, resume: bool, save_every_s: float = 10
) -> History:
    """One process of a training: checkpoints, `history.json` and at the end `weights.pt` go to `work`.

    With `resume` goes on from the checkpoint in `work`; raises FileNotFoundError when there is none, and RuntimeError
    when another recipe made it.
    """
    task = Reading(digits, validation, plan, group)
    history = Loop(task, plan, work, group, resume=resume).run(save_every_s=save_every_s)
    if group.first:
        save(task.network, work / "weights.pt")
    return history
