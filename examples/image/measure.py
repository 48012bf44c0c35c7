"""Measures as the record has them, which the card is written from."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import sklearn

from examples.image import evaluate, serve
from examples.image.data import Digits, Split
from examples.image.evaluate import Graph
from examples.publish import graph_of
from examples.training.history import History
from examples.training.loop import Recipe
from examples.training.speed import Speed
from millrace.evaluating.result import Result


def of_training(recipe: Recipe, history: History, speed: Speed, processes: int, threads: int) -> dict[str, Any]:
    """The run: its recipe, curve and speed."""
    return {
        "recipe": asdict(recipe),
        "curve": history.curve,
        "seconds": history.seconds,
        "speed": asdict(speed) | {"share": speed.share},
        "processes": processes,
        "threads": threads,
    }


def of_graph(path: Path, split: Split) -> dict[str, Any]:
    """The graph alone, on the held-out images, beside the baseline."""
    graph, held_out, description = Graph(path), split.held_out, onnx.load(path)
    probabilities, _ = graph.run(held_out.x)
    return {
        "score": asdict(evaluate.score(probabilities.argmax(1), held_out.label)),
        "neighbour": asdict(evaluate.score(nearest(split.train, held_out.x), held_out.label)),
        "drift": graph.drift(held_out.x),
        "confidence": float(probabilities.max(1).mean()),
        "size_bytes": path.stat().st_size,
        "opset": next(entry.version for entry in description.opset_import if not entry.domain),
        "ir_version": description.ir_version,
        "scikit_learn": sklearn.__version__,
        "images": {"train": len(split.train), "validation": len(split.validation), "held_out": len(held_out)},
    }


def of_served(version: Path, result: Result, held_out: Digits) -> dict[str, Any]:
    """A version through the service. Raises RuntimeError where accuracy or confusion matrix are not those of the graph
    alone, which are scikit-learn's. Both go by the probabilities: of 8 bits, these can tie where `label` does not."""
    path = graph_of(version)
    alone = evaluate.score(Graph(path).run(held_out.x)[0].argmax(1), held_out.label)
    serve.same(alone, result)
    return {"version": version.name, "graph": path.name, "size_bytes": path.stat().st_size, "score": asdict(alone)}


def nearest(known: Digits, x: np.ndarray[Any, np.dtype[np.uint8]]) -> evaluate.Labels:
    """The baseline: the label of the training image with the least Euclidean distance, for each image of `x`."""
    distances = ((x[:, None].astype(np.int64) - known.x[None]) ** 2).sum(axis=(2, 3, 4))
    labels: evaluate.Labels = known.label[distances.argmin(axis=1)]
    return labels
