"""The recipe of the model in the repository: Muon for the matrices (Jordan et al. 2024), AdamW for the embedding and
the norms, in bf16 autocast.

The learning rate rises, stays, and falls linearly to zero over the last part of the run, so a run that was stopped may
be resumed with another number of steps. The windows are short at first and as long as the context for the last part.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from examples.text import model as architecture
from examples.text.tokenizer import Tokens

CHECKPOINT = "checkpoint.pt"
VALIDATION_WINDOWS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides the trained weights, beside the corpus. A step is run in passes of `pass_tokens`, to save memory."""

    steps: int = 2600
    step_tokens: int = 4096
    pass_tokens: int = 2048
    short_window: int = 512
    long_window: int = 1024
    long_fraction: float = 0.2
    warmup_steps: int = 50
    decay_fraction: float = 0.5
    matrix_rate: float = 7e-3
    other_rate: float = 4e-3
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    seed: int = 1

    def rate(self, step: int) -> float:
        """The factor on the learning rates at `step`, in 0..1."""
        left = (self.steps - step) / (self.steps * self.decay_fraction)
        return max(0.0, min(1.0, (step + 1) / self.warmup_steps, left))

    def window(self, step: int) -> int:
        """Tokens in each row at `step`."""
        return self.long_window if step >= self.steps * (1 - self.long_fraction) else self.short_window


@dataclass(slots=True, kw_only=True)
class History:
    """What a run has measured so far.

    `seconds` counts training only and adds up over resumed runs. `plans` has (first step, steps planned in all) for
    each start and resumption; `validation` has (step, nats per token).
    """

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    plans: list[tuple[int, int]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)


def train(
    tokens: Tokens, held_out: Tokens, recipe: Recipe, work: Path, *, resume: bool, save_every_s: float = 300
) -> tuple[Any, History]:
    """Train on the stream `tokens`; answer the model and the measures. Checkpoints and `history.json` go to `work`.

    With `resume`, continues the checkpoint in `work`; raises FileNotFoundError when there is none.
    """
    torch.manual_seed(recipe.seed)
    model = architecture.create().train()
    optimizers = _optimizers(model, recipe)
    history = History()
    if resume:
        history = _restore(work / CHECKPOINT, model, optimizers)
    history.plans.append((history.steps, recipe.steps))
    console = Console()
    weights = architecture.parameters(model)
    console.print(f"{weights:,} weights, {len(tokens):,} tokens, steps {history.steps}..{recipe.steps}")
    saved = time.monotonic()
    with _progress(console) as progress:
        task = progress.add_task("train", total=recipe.steps, completed=history.steps, status="")
        while history.steps < recipe.steps:
            started = time.monotonic()
            rows = batch(tokens, recipe, history.steps)
            loss = _step(model, optimizers, rows, recipe, history.steps)
            history.steps += 1
            history.tokens += rows[:, 1:].numel()
            history.seconds += time.monotonic() - started
            status = f"loss {loss:.3f}  {history.tokens / history.seconds:,.0f} tokens/s"
            progress.update(task, completed=history.steps, status=status)
            if history.steps % 100 == 0 or history.steps == recipe.steps:
                validation = validation_loss(model, held_out, recipe.long_window)
                history.validation.append((history.steps, validation))
                console.print(f"step {history.steps}: {status}, validation {validation:.4f}, {history.seconds:.0f} s")
            if time.monotonic() - saved > save_every_s or history.steps == recipe.steps:
                _save(work, model, optimizers, history, recipe)
                saved = time.monotonic()
    return model.eval(), history


def batch(tokens: Tokens, recipe: Recipe, step: int) -> torch.Tensor:
    """The rows of `step`, [rows, window + 1]: windows at random places, the same in every run with this seed."""
    window = recipe.window(step)
    random = np.random.default_rng((recipe.seed, step))
    starts = random.integers(0, len(tokens) - window, recipe.step_tokens // window)
    return torch.from_numpy(np.stack([tokens[start : start + window + 1] for start in starts]))


def validation_loss(model: Any, held_out: Tokens, window: int) -> float:
    """Nats per token on the first windows of the held-out stream: a quick measure, for the curve only."""
    model.eval()
    count = min(VALIDATION_WINDOWS, (len(held_out) - 1) // window)
    starts = np.linspace(0, len(held_out) - window - 1, count).astype(int)
    rows = [torch.from_numpy(held_out[start : start + window + 1])[None] for start in starts]
    with torch.no_grad():
        mean = sum(_loss(model, row).item() for row in rows) / count
    model.train()
    return float(mean)


def _step(model: Any, optimizers: list[torch.optim.Optimizer], rows: torch.Tensor, recipe: Recipe, step: int) -> float:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_rate"] * recipe.rate(step)
    passes = rows.chunk(recipe.step_tokens // recipe.pass_tokens)
    total = 0.0
    for part in passes:
        loss: Any = _loss(model, part) / len(passes)
        loss.backward()
        total += loss.item()
    if not math.isfinite(total):
        raise FloatingPointError(f"the loss at step {step} is {total}")
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total


def _loss(model: Any, rows: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=rows[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


def _optimizers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    embedding = [weight for name, weight in model.named_parameters() if "embed" in name]
    norms = [weight for weight in model.parameters() if weight.ndim == 1]
    muon = torch.optim.Muon(
        matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(
        [{"params": embedding, "weight_decay": recipe.weight_decay}, {"params": norms, "weight_decay": 0.0}],
        lr=recipe.other_rate,
        betas=(0.9, 0.95),
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak_rate"] = group["lr"]
    return [muon, adam]


def _save(work: Path, model: Any, optimizers: list[torch.optim.Optimizer], history: History, recipe: Recipe) -> None:
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "history": asdict(history),
    }
    unfinished = work / f"{CHECKPOINT}.new"
    torch.save(state, unfinished)
    unfinished.replace(work / CHECKPOINT)
    (work / "history.json").write_text(json.dumps({"recipe": asdict(recipe), **asdict(history)}, indent=1))


def _restore(checkpoint: Path, model: Any, optimizers: list[torch.optim.Optimizer]) -> History:
    if not checkpoint.exists():
        raise FileNotFoundError(f"nothing to resume: {checkpoint} does not exist")
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return History(**state["history"])


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[status]}"), console=console)
