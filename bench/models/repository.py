"""Model folders for what is measured, with the `batching` that measured best."""

from pathlib import Path
from typing import Any

import onnx
import yaml

from bench.models import bert, echo, resnet

GRAPH = "model.onnx"
BATCHING: dict[str, dict[str, int]] = {
    # Bare on 2 cores, 32 tokens: two sessions with a thread each give 422 rows/s with 8 rows a run, 436 with 12; one
    # session with two threads gives 395 at its best, with 32. At 128 tokens: 101 with 4 rows a run, against 92.
    "minilm": {"sessions": 2, "max_rows": 8},
    # 41 rows/s from 4 rows a run on, whatever the sessions; fewer rows let answers come sooner.
    "resnet50": {"sessions": 2, "max_rows": 4},
    # Every request runs by itself, so that its bytes are not copied into a batch.
    "echo": {"sessions": 1, "max_rows": 1},
}


def write(repository: Path, name: str, batching: dict[str, int] | None = None) -> Path:
    """Writes NAME/1 into a model repository, with what `BATCHING` says where nothing else is given; answers the
    graph's path."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(_build(name), folder / GRAPH)
    model: dict[str, Any] = {
        "name": name,
        "task": "tensor",
        "engine": "batch",
        "graphs": {"cpu": {"path": GRAPH, "precision": "fp32"}},
        "batching": batching or BATCHING[name],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(model, sort_keys=False))
    return folder / GRAPH


def _build(name: str) -> onnx.ModelProto:
    if name == "minilm":
        return bert.build(bert.Bert())
    if name == "resnet50":
        return resnet.build(resnet.ResNet())
    return echo.build()
