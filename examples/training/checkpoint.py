"""Checkpoints that are whole: a file appears under its name when all of it is on the disk."""

import os
from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: dict[str, Any]) -> None:
    """Tensors, numbers, texts, and lists and dictionaries of them. The one before stays until this one is complete."""
    unfinished = path.with_name(f"{path.name}.new")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load(path: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """What was saved. Raises FileNotFoundError without it, and RuntimeError where its `recipe` is another one."""
    if not path.exists():
        raise FileNotFoundError(f"nothing to resume: {path} does not exist")
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state["recipe"] != recipe:
        raise RuntimeError(f"{path} was made with another recipe: {state['recipe']}")
    return state
