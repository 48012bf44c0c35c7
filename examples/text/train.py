"""Training of the decoder: AdamW in the loop that the examples share, on windows at random places of the stream.

The windows are short at first, and as long as the context for the last part, as in `shipped`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from examples.text import model as architecture
from examples.text.tokenizer import CONTEXT_TOKENS, Tokens
from examples.training.history import History
from examples.training.loop import Loop, Recipe, planned
from examples.training.processes import Group

SHORT_WINDOW = 512
LONG_FRACTION = 0.2
VALIDATION_WINDOWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What `model.create` is told."""

    layers: int = 4
    hidden: int = 192
    intermediate: int = 512


QUICK = Shape(layers=2, hidden=128, intermediate=384)


def recipe(steps: int, *, bfloat16: bool) -> Recipe:
    """A batch counts short windows: 2,048 tokens."""
    return planned(steps, batch=4, peak_rate=3e-3, weight_decay=0.1, bfloat16=bfloat16)


class Continuing:
    """Implements `Task`."""

    unit = "tokens"

    def __init__(self, stream: Tokens, validation: Tokens, shape: Shape, plan: Recipe, group: Group) -> None:
        torch.manual_seed(plan.seed)
        self._stream, self._validation, self._recipe, self._group = stream, validation, plan, group
        self.network: nn.Module = architecture.create(shape.layers, shape.hidden, shape.intermediate)

    def batch(self, step: int) -> torch.Tensor:
        """Rows of a window and the token behind it; all steps have equally many tokens."""
        window = CONTEXT_TOKENS if step >= self._recipe.steps * (1 - LONG_FRACTION) else SHORT_WINDOW
        rows = self._recipe.batch * SHORT_WINDOW // window
        starts = np.random.default_rng((self._recipe.seed, step)).integers(0, len(self._stream) - window, rows)
        return _rows(self._stream, starts[list(self._group.share(rows))], window)

    def amount(self, batch: torch.Tensor) -> float:
        """Tokens that are predicted."""
        return float(batch[:, 1:].numel())

    def loss(self, network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        """Nats a token."""
        rows = batch.to(self._group.device)
        logits: Any = network(input_ids=rows[:, :-1]).logits
        return cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())

    def validate(self) -> dict[str, float]:
        """Nats a token, and their perplexity, of some windows: a quick measure, for the curve only."""
        count = min(VALIDATION_WINDOWS, (len(self._validation) - 1) // SHORT_WINDOW)
        starts = np.linspace(0, len(self._validation) - SHORT_WINDOW - 1, count).astype(int)
        nats = self.loss(self.network, _rows(self._validation, starts, SHORT_WINDOW)).item()
        return {"validation_loss": nats, "perplexity": float(np.exp(nats))}


def train(
    group: Group,
    stream: Tokens,
    validation: Tokens,
    shape: Shape,
    plan: Recipe,
    work: Path,
    resume: bool,
    save_every_s: float = 20,
) -> History:
    """One process of a training: its network's weights go to `weights.pt` in `work`."""
    task = Continuing(stream, validation, shape, plan, group)
    history = Loop(task, plan, work, group, resume=resume).run(save_every_s=save_every_s)
    if group.first:
        torch.save(task.network.state_dict(), work / "weights.pt")
    return history


def load(path: Path, shape: Shape) -> Any:
    """The model of the weights at `path`, ready to be evaluated."""
    network = architecture.create(shape.layers, shape.hidden, shape.intermediate)
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return network.eval()


def _rows(stream: Tokens, starts: Tokens, window: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([stream[start : start + window + 1] for start in starts]))
