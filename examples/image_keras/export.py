"""From a .keras file to the model's folder, by `millrace export`, which compares the graph with Keras."""

import shutil
from pathlib import Path

from examples.image_keras.train import HELD_OUT, MODEL
from millrace.exporting.order import Order
from millrace.exporting.run import Published
from millrace.exporting.run import export as make
from millrace.exporting.stages import Stages

KEYS = {
    "description": "A residual network in Keras that reads digits of 8x8 pixels, trained on scikit-learn's digits.",
    "licence": "Apache-2.0",
    "classes": {"scores": "none"},
    "image": {"scale": 16 / 255, "invert": True},
    "batching": {"max_rows": 64},
}


def ship(work: Path, version: Path, environments: Path, stages: Stages) -> Published:
    """In place of a version that is there. Raises ValueError where the graph is too far from Keras, on random images
    and on the held-out ones."""
    shutil.rmtree(version, ignore_errors=True)
    order = Order(
        source=str(work / MODEL),
        out=version,
        samples=work / HELD_OUT,
        task="image-classification",
        keys=KEYS,
        environments=environments,
    )
    return make(order, stages)
