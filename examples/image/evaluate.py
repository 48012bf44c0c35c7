"""Measures of a graph, taken through ONNX Runtime and by scikit-learn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

CLASSES = 10

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`confusion[true][predicted]` counts images. `precision` and `recall` are by class, 0 where none got the label, or
    none has it."""

    confusion: list[list[int]]
    precision: list[float]
    recall: list[float]

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
        from scipy.stats import binomtest  # type: ignore[import-untyped]

        low, high = binomtest(self.correct, self.images).proportion_ci(0.95, method="wilson")
        return float(low), float(high)


def score(predicted: npt.NDArray[np.integer], label: npt.NDArray[np.integer]) -> Score:
    """Of predicted labels [n] beside true ones [n]."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    classes = range(CLASSES)
    precision, recall, _, _ = precision_recall_fscore_support(label, predicted, labels=classes, zero_division=0)
    confusion = confusion_matrix(label, predicted, labels=classes)
    return Score(confusion=confusion.tolist(), precision=precision.tolist(), recall=recall.tolist())


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
