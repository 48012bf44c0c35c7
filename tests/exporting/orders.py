"""Orders and outcomes for tests: an export to a repository in a test's own folder, told to nobody."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from millrace.exporting.order import Order
from millrace.exporting.run import Published, export
from millrace.exporting.stages import Stages
from services.worker import repository

needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "onnxscript")),
    reason="needs torch and transformers: `make frameworks` makes an environment with both",
)
SILENT = Stages(Console(), quiet=True)


def order(source: object, models: Path, name: str = "made", version: str = "1", **options: Any) -> Order:
    return Order(source=str(source), out=models / name / version, **options)


def exported(source: object, models: Path, **options: Any) -> Published:
    return export(order(source, models, **options), SILENT)


def described(published: Published) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((published.folder / "model.yaml").read_text())
    return read


def names(folder: Path) -> set[str]:
    """Of all files below."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def loaded(models: Path) -> Any:
    """The engine of the only model, as a worker loads it."""
    (model,), broken = repository.scan(models)
    assert not broken, broken
    return repository.load(model, "cpu", threads=1)


def write_function(folder: Path, body: str, file: str = "made.py") -> str:
    """A file with a function `model` of this body; answers how an export names it."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    (folder / file).write_text(f"def model():\n{lines}\n")
    return f"{folder / file}:model"
