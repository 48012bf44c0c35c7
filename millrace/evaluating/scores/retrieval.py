"""Whether queries find the documents that are relevant to them, by the cosine of their vectors.

Recall@k is the share of a query's relevant documents among the first k. MRR@10 is 1 / the rank of the first relevant
one, 0 where that is beyond 10. nDCG@10 adds up relevance / log2(1 + rank) over the first 10 and divides it by what the
best order would have (Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", 2002). Each is the
mean over queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from millrace.evaluating.asking import Answer
from millrace.evaluating.asking.answer import to_vector
from millrace.evaluating.data import Example
from millrace.evaluating.scores.scorer import Array, Ratios

RECALL_AT = (1, 5, 10)
DEPTH = max(RECALL_AT)
BLOCK = 256
"""Queries whose cosines are held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a query found first."""

    documents: Sequence[str]
    recalls: Sequence[float]
    reciprocal_rank: float
    ndcg: float


def find(queries: Sequence[tuple[Example, Answer]], documents: Sequence[tuple[Example, Answer]]) -> list[Found]:
    """The first `DEPTH` documents of each query. Documents that have no vector cannot be found."""
    names = [example.id for example, _ in documents]
    corpus = _units([answer for _, answer in documents])
    asked = _units([answer for _, answer in queries])
    found = []
    for begin in range(0, len(queries), BLOCK):
        cosines = asked[begin : begin + BLOCK] @ corpus.T
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :DEPTH]
        for (example, _), places in zip(queries[begin : begin + BLOCK], order, strict=True):
            found.append(_judged([names[place] for place in places], example.relevant or {}))
    return found


def retrieval(found: Sequence[Found]) -> Ratios:
    columns = {f"recall@{k}": [one.recalls[place] for one in found] for place, k in enumerate(RECALL_AT)}
    columns |= {"mrr@10": [one.reciprocal_rank for one in found], "ndcg@10": [one.ndcg for one in found]}
    ones = np.ones(len(found))
    parts = {name: (np.array(values), ones) for name, values in columns.items()}
    return Ratios(parts, {name: float(np.mean(values)) for name, values in columns.items()})


def _judged(names: Sequence[str], relevant: Mapping[str, float]) -> Found:
    gains = np.array([relevant.get(name, 0.0) for name in names])
    hits = np.flatnonzero(gains)
    best = np.array(sorted(relevant.values(), reverse=True)[:DEPTH])
    return Found(
        documents=names,
        recalls=[float(np.count_nonzero(gains[:k]) / len(relevant)) for k in RECALL_AT],
        reciprocal_rank=float(1 / (hits[0] + 1)) if hits.size else 0.0,
        ndcg=float(_discounted(gains) / _discounted(best)),
    )


def _discounted(gains: Array) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _units(answers: Sequence[Answer]) -> Array:
    """[answers, dimensions], of length 1. Raises ValueError where dimensions differ."""
    vectors = [to_vector(answer.vector or "") for answer in answers]
    if len({vector.size for vector in vectors}) > 1:
        raise ValueError("vectors have different dimensions")
    stacked = np.stack(vectors)
    lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
    units: Array = np.divide(stacked, lengths, out=np.zeros_like(stacked), where=lengths > 0)
    return units
