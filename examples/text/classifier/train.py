"""Training: cross-entropy of augmented snippets, by the loop that the examples share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from examples.text.classifier.model import Network
from examples.text.classifier.tokens import MOST_TOKENS, Encoded
from examples.text.tokenizer import SEPARATOR_ID
from examples.training.history import History
from examples.training.loop import Loop, Recipe, planned
from examples.training.processes import Group

KEPT = (0.4, 1.0)
"""The share of a snippet's tokens that a row has: a window, begun anywhere."""
HIDDEN = 0.15
"""The share of a row's tokens that are hidden behind the separator."""
SMOOTHING = 0.1
VALIDATION_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """`ids` and `mask` [rows, tokens]; `labels` [rows]."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


def recipe(steps: int, *, bfloat16: bool) -> Recipe:
    return planned(steps, batch=32, peak_rate=2e-3, weight_decay=0.1, bfloat16=bfloat16, warmup_steps=50)


class Naming:
    """Implements `Task`."""

    unit = "tokens"

    def __init__(self, snippets: Encoded, validation: Encoded, plan: Recipe, group: Group) -> None:
        torch.manual_seed(plan.seed)
        self._snippets, self._validation, self._recipe, self._group = snippets, validation, plan, group
        self.network = Network()

    def batch(self, step: int) -> Rows:
        """Each label is as frequent as the others."""
        labels = np.array(self._snippets.labels)
        weights = 1 / np.bincount(labels)[labels]
        random = np.random.default_rng((self._recipe.seed, step))
        picked = random.choice(len(labels), self._recipe.batch, p=weights / weights.sum())
        chosen = [(row, picked[row]) for row in self._group.share(self._recipe.batch)]
        ids = [
            augmented(self._snippets.ids[index], np.random.default_rng((self._recipe.seed, step, row)))
            for row, index in chosen
        ]
        return to_rows(ids, [self._snippets.labels[index] for _, index in chosen])

    def amount(self, batch: Rows) -> float:
        """Tokens, padding included."""
        return float(batch.ids.numel())

    def loss(self, network: nn.Module, batch: Rows) -> torch.Tensor:
        device = self._group.device
        logits = network(batch.ids.to(device), batch.mask.to(device))
        return cross_entropy(logits.float(), batch.labels.to(device), label_smoothing=SMOOTHING)

    def validate(self) -> dict[str, float]:
        """Loss and accuracy of snippets that are not augmented."""
        ids, labels, found = self._validation.ids, self._validation.labels, []
        for start in range(0, len(ids), VALIDATION_ROWS):
            rows = to_rows(ids[start : start + VALIDATION_ROWS], labels[start : start + VALIDATION_ROWS])
            found.append(self.network(rows.ids.to(self._group.device), rows.mask.to(self._group.device)).cpu())
        logits, wanted = torch.cat(found).float(), torch.tensor(labels)
        accuracy = (logits.argmax(-1) == wanted).float().mean().item()
        return {"validation_loss": cross_entropy(logits, wanted).item(), "accuracy": accuracy}


def augmented(ids: Sequence[int], random: np.random.Generator) -> list[int]:
    """A window of the tokens, some of them hidden; as many as the network takes at most."""
    length = max(1, min(MOST_TOKENS, int(len(ids) * random.uniform(*KEPT))))
    start = int(random.integers(0, len(ids) - length + 1))
    hidden = random.random(length) < HIDDEN
    window = ids[start : start + length]
    return [SEPARATOR_ID if gone else token for token, gone in zip(window, hidden, strict=True)]


def to_rows(ids: Sequence[Sequence[int]], labels: Sequence[int]) -> Rows:
    """Cut to `MOST_TOKENS`, and padded on the right to the longest."""
    lengths = [min(len(row), MOST_TOKENS) for row in ids]
    padded = np.full((len(ids), max(lengths)), SEPARATOR_ID, np.int64)
    for place, (row, length) in enumerate(zip(ids, lengths, strict=True)):
        padded[place, :length] = row[:length]
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return Rows(ids=torch.from_numpy(padded), mask=torch.from_numpy(mask.astype(np.int64)), labels=torch.tensor(labels))


def train(
    group: Group,
    snippets: Encoded,
    validation: Encoded,
    plan: Recipe,
    work: Path,
    resume: bool,
    save_every_s: float = 20,
) -> History:
    """One process of a training: its network's weights go to `weights.pt` in `work`."""
    task = Naming(snippets, validation, plan, group)
    history = Loop(task, plan, work, group, resume=resume).run(save_every_s=save_every_s)
    if group.first:
        torch.save(task.network.state_dict(), work / "weights.pt")
    return history
