"""Measures of a graph, taken through ONNX Runtime: the confusion matrix and what follows from it."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

CLASSES = 10
NORMAL_95 = 1.96

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`confusion[true][predicted]` counts images."""

    confusion: list[list[int]]

    @property
    def images(self) -> int:
        """How many were classified."""
        return int(np.sum(self.confusion))

    @property
    def correct(self) -> int:
        """How many got their own label."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """Correct images of all images, 0..1."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (Wilson 1927): what so few images can tell."""
        z2, n = NORMAL_95**2, self.images
        centre = self.accuracy + z2 / (2 * n)
        margin = math.sqrt(z2 * (self.accuracy * (1 - self.accuracy) / n + z2 / (4 * n * n)))
        return (centre - margin) / (1 + z2 / n), (centre + margin) / (1 + z2 / n)

    @property
    def precision(self) -> list[float]:
        """By class: correct images of those that got this label, 0 when none did."""
        return _shares(np.diag(self.confusion), np.sum(self.confusion, axis=0))

    @property
    def recall(self) -> list[float]:
        """By class: correct images of those that have this label, 0 when none has."""
        return _shares(np.diag(self.confusion), np.sum(self.confusion, axis=1))


def score(predicted: npt.NDArray[np.integer], label: npt.NDArray[np.integer]) -> Score:
    """Count predicted labels [n] against true ones [n]."""
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion, (label, predicted), 1)
    return Score(confusion=confusion.tolist())


class Graph:
    """A classifier graph: `x` [batch, 1, 8, 8] in, `probabilities` [batch, 10] and `label` [batch] out."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, x: npt.NDArray[np.generic]) -> tuple[Floats, Labels]:
        """Probabilities and labels of images with grey values 0..16, of any number type."""
        probabilities, label = self.session.run(["probabilities", "label"], {"x": x.astype(np.float32)})
        return probabilities, label

    def drift(self, x: npt.NDArray[np.generic]) -> float:
        """The largest change of a probability when the images are sent one at a time instead of at once."""
        alone = np.concatenate([self.run(x[row : row + 1])[0] for row in range(len(x))])
        return float(abs(alone - self.run(x)[0]).max())


def _shares(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> list[float]:
    return [float(share) for share in part / np.maximum(whole, 1)]
