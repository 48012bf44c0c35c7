"""All the measures of a trained model, as one record that the card is written from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import sklearn
import torch

from examples.image import evaluate, export, model
from examples.image.data import Digits, Split
from examples.image.evaluate import Graph, Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What the card says. `neighbour` is the nearest-neighbour baseline; the differences are of probabilities."""

    score: Score
    neighbour: Score
    difference: float
    drift: float
    confidence: float
    images: dict[str, int]
    history: dict[str, Any]
    weights: int
    size_bytes: int
    opset: int
    ir_version: int
    scikit_learn: str
    threads: int

    def facts(self) -> dict[str, Any]:
        """The fields of the card's text, by name."""
        recipe, run = self.history["recipe"], self.history
        return {
            **recipe,
            **self.images,
            "seconds": run["seconds"],
            "epochs": run["steps"] * recipe["batch"] / self.images["train"],
            "difference": self.difference,
            "drift": f"to {self.drift:.1e}" if self.drift else "bit for bit",
            "confidence": self.confidence,
            "image_share": 1 / self.score.images,
            "weights": self.weights,
            "size_mb": self.size_bytes / 1e6,
            "opset": self.opset,
            "ir_version": self.ir_version,
            "scikit_learn": self.scikit_learn,
            "threads": self.threads,
        }

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))


def load(path: Path) -> Measures:
    """Read what `Measures.save` wrote."""
    record = json.loads(path.read_text())
    return Measures(score=Score(**record.pop("score")), neighbour=Score(**record.pop("neighbour")), **record)


def measure(split: Split, work: Path, folder: Path) -> Measures:
    """Score the graph in `folder` and the baseline on the held-out images; compare it with PyTorch on the others."""
    path = folder / "model.onnx"
    graph, network, held_out = Graph(path), model.load(work / "weights.pt"), split.held_out
    probabilities, label = graph.run(held_out.x)
    description = onnx.load(path)
    return Measures(
        score=evaluate.score(label, held_out.label),
        neighbour=evaluate.score(nearest(split.train, held_out.x), held_out.label),
        difference=export.difference(network, graph, np.concatenate([split.train.x, split.validation.x])),
        drift=graph.drift(held_out.x),
        confidence=float(probabilities.max(1).mean()),
        images={"train": len(split.train), "validation": len(split.validation), "held_out": len(held_out)},
        history=json.loads((work / "history.json").read_text()),
        weights=model.parameters(network),
        size_bytes=path.stat().st_size,
        opset=next(entry.version for entry in description.opset_import if not entry.domain),
        ir_version=description.ir_version,
        scikit_learn=sklearn.__version__,
        threads=torch.get_num_threads(),
    )


def nearest(known: Digits, x: np.ndarray[Any, np.dtype[np.uint8]]) -> evaluate.Labels:
    """The baseline: the label of the training image with the least Euclidean distance, for each image of `x`."""
    distances = ((x[:, None].astype(np.int64) - known.x[None]) ** 2).sum(axis=(2, 3, 4))
    labels: evaluate.Labels = known.label[distances.argmin(axis=1)]
    return labels
