"""One model version's outcomes as a `System`, and two of them as a `Comparison`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]
from sklearn import metrics

from millrace.evaluating.asking import Answer, Failure, Outcome, Target
from millrace.evaluating.data import Dataset, Example
from millrace.evaluating.kinds import PRIMARY, Kind
from millrace.evaluating.result import Bin, Comparison, Curve, Failed, Label, System, Verdict
from millrace.evaluating.scores.classification import Classification
from millrace.evaluating.scores.resampling import Difference, differences, measures
from millrace.evaluating.scores.retrieval import find, retrieval
from millrace.evaluating.scores.scorer import Scorer
from millrace.evaluating.scores.texts import cost, exact_match, transcripts
from millrace.evaluating.scores.worst import worst

Pair = tuple[Example, Answer]
SIGNIFICANCE = 0.05
MOST_POINTS = 200
MOST_LABELS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    resamples: int = 1000
    seed: int = 0


def system(target: Target, dataset: Dataset, outcomes: Mapping[str, Outcome], resampling: Resampling) -> System:
    """Raises ValueError where nothing was answered, or vectors have different dimensions."""
    known = [example for example in dataset.examples if example.id in outcomes]
    answered = pairs(known, outcomes)
    failures = [*_failures(known, outcomes)]
    if not any(example.relevant is not None or dataset.kind != "embed" for example, _ in answered):
        told = f": {failures[0].message}" if failures else ""
        raise ValueError(f"{target} answered none of the {len(known)} examples{told}")
    scorer = make_scorer(dataset.kind, answered)
    return System(
        model=target.model,
        version=target.version,
        digest=target.digest,
        answered=len(answered),
        failed=sum(one.count for one in failures),
        measures=measures(scorer, resamples=resampling.resamples, seed=resampling.seed),
        worst=worst(dataset.kind, answered),
        failures=failures,
        **(_details(scorer) if isinstance(scorer, Classification) else {}),
    )


def pairs(examples: Sequence[Example], outcomes: Mapping[str, Outcome]) -> list[Pair]:
    """Those with an answer, in the data's order."""
    found = ((example, outcomes.get(example.id)) for example in examples)
    return [(example, outcome) for example, outcome in found if isinstance(outcome, Answer)]


def make_scorer(kind: Kind, answered: Sequence[Pair]) -> Scorer:
    truths, answers = [example.truth for example, _ in answered], [answer for _, answer in answered]
    if kind in ("classify", "infer"):
        return Classification(truths, answers)
    if kind == "generate":
        return exact_match(truths, answers)
    if kind == "perplexity":
        return cost(answers)
    if kind == "transcribe":
        return transcripts(truths, answers)
    queries, documents = _halves(answered)
    return retrieval(find(queries, documents))


def compare(
    kind: Kind,
    examples: Sequence[Example],
    before: tuple[Target, Mapping[str, Outcome]],
    after: tuple[Target, Mapping[str, Outcome]],
    resampling: Resampling,
) -> Comparison:
    """Raises ValueError where they have no answered example in common."""
    both = [one for one in examples if all(isinstance(found.get(one.id), Answer) for _, found in (before, after))]
    if not any(example.relevant is not None or kind != "embed" for example in both):
        raise ValueError(f"{before[0]} and {after[0]} have no answered example in common")
    first, second = (make_scorer(kind, pairs(both, outcomes)) for _, outcomes in (before, after))
    rows = differences(first, second, resamples=resampling.resamples, seed=resampling.seed)
    primary = next(row for row in rows if row.name == PRIMARY[kind])
    judged: dict[str, Any] = {"test": "paired bootstrap", "verdict": by_interval(primary)}
    if isinstance(first, Classification) and isinstance(second, Classification):
        only_first = int((first.is_right & ~second.is_right).sum())
        only_second = int((second.is_right & ~first.is_right).sum())
        judged = mcnemar(only_first, only_second)
    return Comparison(
        before=str(before[0]), after=str(after[0]), examples=first.count, primary=primary.name, rows=rows, **judged
    )


def mcnemar(only_before: int, only_after: int) -> dict[str, Any]:
    """Whether those that only one has right could be a coin's doing: the exact test of McNemar, "Note on the Sampling
    Error of the Difference between Correlated Proportions or Percentages", 1947."""
    told = only_before + only_after
    p_value = float(stats.binomtest(only_before, told).pvalue) if told else 1.0
    verdict: Verdict = "same" if p_value >= SIGNIFICANCE else "worse" if only_before > only_after else "better"
    return {
        "test": "McNemar's exact test",
        "only_before": only_before,
        "only_after": only_after,
        "p_value": p_value,
        "verdict": verdict,
    }


def by_interval(row: Difference) -> Verdict:
    """By whether the interval of the difference has 0 in it."""
    if row.low is None or row.high is None or row.low <= 0 <= row.high:
        return "same"
    return "better" if (row.low > 0) != row.lower_is_better else "worse"


def _halves(answered: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    queries = [one for one in answered if one[0].relevant is not None]
    documents = [one for one in answered if one[0].relevant is None]
    if not documents:
        raise ValueError("no document has a vector")
    return queries, documents


def _failures(examples: Sequence[Example], outcomes: Mapping[str, Outcome]) -> Iterator[Failed]:
    """By code and reason, the most frequent first."""
    failed = [(one.id, found) for one in examples if isinstance(found := outcomes[one.id], Failure)]
    counted = Counter((failure.code, failure.reason) for _, failure in failed)
    for (code, reason), count in counted.most_common():
        first = next((name, one) for name, one in failed if (one.code, one.reason) == (code, reason))
        yield Failed(code=code, reason=reason, count=count, id=first[0], message=first[1].message[:1000])


def _details(scorer: Classification) -> dict[str, Any]:
    if len(scorer.labels) > MOST_LABELS:
        return {}
    rows = [
        Label(label=label, precision=precision, recall=recall, f1=f1, support=support)
        for label, precision, recall, f1, support in scorer.per_label()
    ]
    bins = scorer.bins() if scorer.has_scores else []
    return {
        "labels": rows,
        "confusion": scorer.confusion(),
        "roc": [*_roc(scorer)],
        "precision_recall": [*_precision_recall(scorer)],
        "calibration": [Bin(confidence=sure, accuracy=right, examples=count) for sure, right, count in bins],
    }


def _roc(scorer: Classification) -> Iterator[Curve]:
    for label, (is_right, scores) in scorer.ranked.items():
        x, y, _ = metrics.roc_curve(is_right, scores)
        yield Curve(label=label, area=float(metrics.roc_auc_score(is_right, scores)), **_thinned(x, y))


def _precision_recall(scorer: Classification) -> Iterator[Curve]:
    for label, (is_right, scores) in scorer.ranked.items():
        precision, recall, _ = metrics.precision_recall_curve(is_right, scores)
        area = float(metrics.average_precision_score(is_right, scores))
        yield Curve(label=label, area=area, **_thinned(recall[::-1], precision[::-1]))


def _thinned(x: Any, y: Any) -> dict[str, list[float]]:
    places = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(np.intp)) if len(x) > MOST_POINTS else ...
    return {"x": [float(value) for value in x[places]], "y": [float(value) for value in y[places]]}
