"""Training: the loss is CTC's (A. Graves et al. 2006), the rows of a step are of similar length and augmented anew."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import ctc_loss

from examples.speech import augment, score
from examples.speech.corpus import Corpus
from examples.speech.features import FRAMES_PER_S, SAMPLE_RATE, log_mel
from examples.speech.model import Network
from examples.speech.voices import spoken
from examples.training.history import History
from examples.training.loop import Loop, Recipe, planned
from examples.training.processes import Group

ROOM_S = 0.5
"""Of silence around the longest of a batch, to shift it in."""
NEIGHBOURS = 4
"""A batch is drawn from so many times as many sounds of similar length."""
NORMALISED_BY = 64
UNIT = "s of sound"


def recipe(steps: int, *, bfloat16: bool) -> Recipe:
    return planned(steps, batch=32, peak_rate=3e-3, weight_decay=0.05, bfloat16=bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """`features` [rows, frames, mels]; `labels` of all rows, one behind the other; `lengths` [rows] of each's."""

    features: torch.Tensor
    labels: torch.Tensor
    lengths: torch.Tensor


class Hearing:
    """Implements `Task`."""

    unit = UNIT

    def __init__(self, corpus: Corpus, validation: Corpus, plan: Recipe, group: Group) -> None:
        torch.manual_seed(plan.seed)
        self._corpus, self._validation, self._recipe, self._group = corpus, validation, plan, group
        self._log_mel = log_mel()
        self._by_length = np.argsort(corpus.lengths, kind="stable")
        self.network = Network(*self._moments())

    def batch(self, step: int) -> Rows:
        picked, speeds, length = self._draw(step)
        rows, labels = [], list[tuple[int, ...]]()
        for row in self._group.share(self._recipe.batch):
            random = np.random.default_rng((self._recipe.seed, step, row))
            sound = augment.faster(self._corpus.sound(picked[row]), speeds[row])
            features = self._log_mel(augment.spoilt(sound, length, random))
            rows.append(augment.masked(features, random))
            labels.append(self._corpus.digits[picked[row]])
        return to_rows(np.stack(rows), labels)

    def amount(self, batch: Rows) -> float:
        """Seconds, silence included."""
        rows, frames, _ = batch.features.shape
        return float(rows * frames / FRAMES_PER_S)

    def loss(self, network: nn.Module, batch: Rows) -> torch.Tensor:
        return loss(network(batch.features.to(self._group.device)), batch)

    def validate(self) -> dict[str, float]:
        """Loss and word error rate of sounds that are not augmented, one at a time."""
        losses, found = [], []
        for index, digits in enumerate(self._validation.digits):
            rows = to_rows(self._log_mel(self._validation.sound(index))[None], [digits])
            logits = self.network(rows.features.to(self._group.device)).float()
            losses.append(loss(logits, rows).item())
            found.append(score.transcript(logits[0].cpu().numpy()))
        wer = score.score([spoken(digits) for digits in self._validation.digits], found).wer
        return {"validation_loss": float(np.mean(losses)), "wer": wer}

    def _draw(self, step: int) -> tuple[list[int], list[float], int]:
        """Of all processes' rows: the sounds, their speeds, and the samples that hold the longest."""
        random = np.random.default_rng((self._recipe.seed, step))
        near = min(len(self._corpus), NEIGHBOURS * self._recipe.batch)
        start = random.integers(0, len(self._corpus) - near + 1)
        picked = self._by_length[start + random.choice(near, self._recipe.batch, replace=near < self._recipe.batch)]
        speeds = random.uniform(*augment.SPEEDS, self._recipe.batch)
        longest = float((self._corpus.lengths[picked] / speeds).max())
        return picked.tolist(), speeds.tolist(), int(longest + ROOM_S * SAMPLE_RATE)

    def _moments(self) -> tuple[float, float]:
        """Mean and deviation of the features of some sounds."""
        features = [self._log_mel(self._corpus.sound(index)) for index in range(min(NORMALISED_BY, len(self._corpus)))]
        joined = np.concatenate(features)
        return float(joined.mean()), float(joined.std())


def to_rows(features: augment.Features, digits: list[tuple[int, ...]]) -> Rows:
    """Digit d is the label d + 1, behind the blank."""
    return Rows(
        features=torch.from_numpy(features),
        labels=torch.tensor([digit + 1 for row in digits for digit in row]),
        lengths=torch.tensor([len(row) for row in digits]),
    )


def loss(logits: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Of logits [rows, frames, labels]: each row's over its number of digits, and their mean."""
    scores = logits.float().log_softmax(-1).transpose(0, 1)
    frames = torch.full((len(rows.lengths),), len(scores))
    return ctc_loss(scores, rows.labels.to(scores.device), frames, rows.lengths)


def train(
    group: Group, corpus: Corpus, validation: Corpus, plan: Recipe, work: Path, resume: bool, save_every_s: float = 20
) -> History:
    """One process of a training: its network's weights go to `weights.pt` in `work`."""
    task = Hearing(corpus, validation, plan, group)
    loop = Loop(task, plan, work, group, resume=resume)
    history = loop.run(save_every_s=save_every_s)
    if group.first:
        torch.save(task.network.state_dict(), work / "weights.pt")
    return history
