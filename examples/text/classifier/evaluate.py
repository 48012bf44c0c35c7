"""Labels by ONNX Runtime alone, and by the baseline: what the service is held against."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from examples.text.classifier.data import LABELS
from examples.text.classifier.tokens import MOST_TOKENS, VOCABULARY_SIZE, Encoded
from millrace.evaluating.result import Result

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`f1` is the mean over the labels; `confusion` [right, given], in the order of LABELS."""

    accuracy: float
    f1: float
    confusion: list[list[int]]


class Graph:
    """`input_ids` and `attention_mask` [rows, tokens] in, `logits` [rows, labels] out."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def logits(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """[snippets, labels], each cut to `MOST_TOKENS` and run alone."""
        found = []
        for one in ids:
            row = np.array([one[:MOST_TOKENS]], np.int64)
            found.append(self._session.run(["logits"], {"input_ids": row, "attention_mask": np.ones_like(row)})[0])
        return np.concatenate(found)

    def labels(self, snippets: Encoded) -> Labels:
        """The best of each."""
        labels: Labels = self.logits(snippets.ids).argmax(-1)
        return labels


def baseline(known: Encoded, snippets: Encoded) -> Labels:
    """By scikit-learn's multinomial naive Bayes over the counts of all of a snippet's tokens."""
    from sklearn.naive_bayes import MultinomialNB

    def counts(encoded: Encoded) -> Labels:
        return np.array([np.bincount(ids, minlength=VOCABULARY_SIZE) for ids in encoded.ids])

    labels: Labels = MultinomialNB().fit(counts(known), known.labels).predict(counts(snippets))
    return labels


def score(given: Sequence[int] | Labels, right: Sequence[int]) -> Score:
    """scikit-learn's measures."""
    from sklearn import metrics

    order = range(len(LABELS))
    return Score(
        accuracy=float(metrics.accuracy_score(right, given)),
        f1=float(metrics.f1_score(right, given, labels=order, average="macro", zero_division=0)),
        confusion=metrics.confusion_matrix(right, given, labels=order).tolist(),
    )


def same_confusion(alone: Score, result: Result) -> None:
    """Raises RuntimeError where the service's confusion matrix is another."""
    places = [LABELS.index(one.label) for one in result.system.labels]
    served = np.zeros((len(LABELS), len(LABELS)), np.int64)
    served[np.ix_(places, places)] = result.system.confusion
    if served.tolist() != alone.confusion:
        raise RuntimeError(f"{result.system.title}: the confusion matrix through the service is another than alone")
