"""scikit-learn: a fitted estimator or pipeline over numbers, from a function or a file of joblib or pickle.

The graph takes one input, `x` (fp32, [batch, features]). Of a classifier it gives the label and the probabilities, or
scores, of all classes [batch, classes]; of a regressor and a transformer what they give.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from millrace.exporting import called, feeds, folder, graphs, trust
from millrace.exporting.built import Built, Plan
from millrace.exporting.feeds import Feed, Port
from millrace.exporting.order import Order, Precision, check_precision
from millrace.exporting.packages import need, versions
from millrace.exporting.parity import Array, Comparison, Parity, compare, limits
from millrace.exporting.stages import Stages

INPUT = "x"
ROWS = (1, 7, 256)
CLASSIFIER, REGRESSOR, TRANSFORMER = "tabular-classification", "tabular-regression", "tabular-transformation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """An estimator, and inputs like those that it was fitted on, or none."""

    estimator: Any
    features: int
    example: Array | None

    @property
    def task(self) -> str:
        if hasattr(self.estimator, "classes_"):
            return CLASSIFIER
        return REGRESSOR if hasattr(self.estimator, "predict") else TRANSFORMER


class Sklearn:
    """Implements `Source`. `made`: what a function answered already."""

    def __init__(self, made: Any = None) -> None:
        self._made = made

    def plan(self, order: Order) -> Plan:
        need(("sklearn", "skl2onnx"), "a model of scikit-learn")
        check_precision(order, Precision.FP32)
        size = 0
        if self._made is None and not called.is_function(order.source):
            trust.need_trusted_pickle(order)
            size = Path(order.source).stat().st_size
        return Plan(disk_bytes=2 * size, memory_bytes=4 * size)

    def build(self, order: Order, folder_path: Path, stages: Stages) -> Built:
        with stages.stage("read the estimator"):
            fitted = check(self._made if self._made is not None else _read(order.source))
        with stages.stage("skl2onnx"):
            graphs.save(_convert(fitted), folder_path)
        with stages.stage("compare with scikit-learn"):
            parity = _compare(fitted, folder_path, order)
        return Built(
            parity=parity, task=fitted.task, keys=_labels(order, fitted, folder_path), facts=_facts(order, fitted)
        )


def check(made: Any) -> Fitted:
    """What a function answered: an estimator, or one with example inputs. Raises ValueError where it is not fitted, or
    takes something else than numbers."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    estimator, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as error:
        raise ValueError(f"not a fitted estimator of scikit-learn: {error}") from None
    features = getattr(estimator, "n_features_in_", None)
    if not isinstance(features, int | np.integer):
        raise ValueError(
            "the estimator does not say how many features it takes: it must be fitted on an array [rows, features]"
        )
    if example is not None:
        example = np.asarray(example)
        if example.dtype.kind not in "fiub" or example.ndim != 2 or example.shape[1] != features:
            raise ValueError(
                f"the example inputs must be numbers [rows, {features}]: texts are no input of such a graph"
            )
    return Fitted(estimator=estimator, features=int(features), example=example)


def _read(source: str) -> Any:
    if called.is_function(source):
        return called.call(source)
    import joblib

    try:
        return joblib.load(source)
    except Exception as error:  # a pickle raises whatever it likes
        raise ValueError(f"{Path(source).name} cannot be read: {error}") from error


def _convert(fitted: Fitted) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    options = {id(fitted.estimator): {"zipmap": False}} if fitted.task == CLASSIFIER else None
    try:
        model = to_onnx(
            fitted.estimator,
            initial_types=[(INPUT, FloatTensorType([None, fitted.features]))],
            options=options,
            target_opset={"": graphs.OPSET, "ai.onnx.ml": 3},
        )
    except Exception as error:  # its errors have no base of their own
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"skl2onnx cannot convert {type(fitted.estimator).__name__}: {first}") from error
    graphs.name_batch(model)
    return model


def _compare(fitted: Fitted, folder_path: Path, order: Order) -> Parity:
    opened = graphs.session(folder_path / graphs.GRAPH_FILE)
    ports = graphs.inputs(opened)
    given = _given(fitted, ports, order)
    comparisons: list[Comparison] = []
    for feed in given:
        found = graphs.run(opened, feed.tensors)
        expected = _expected(fitted, feed.tensors[INPUT], list(found))
        comparisons += compare(feed.given, expected, {name: _alike(found[name], one) for name, one in expected.items()})
    return Parity(limits=limits(order.precision, order.tolerance), comparisons=comparisons)


def _given(fitted: Fitted, ports: tuple[Port, ...], order: Order) -> list[Feed]:
    found = list(feeds.random_feeds(ports, rows=ROWS))
    if fitted.example is not None:
        rows = fitted.example.astype(np.float32)
        found.append(Feed(given=f"example, {len(rows)}", tensors={INPUT: rows}))
    if order.samples is not None:
        found.append(feeds.read_samples(order.samples, ports))
    return found


def _expected(fitted: Fitted, rows: Array, outputs: list[str]) -> dict[str, Array]:
    """What the estimator says of fp32 inputs, by the graph's names: the first output is what is predicted."""
    estimator = fitted.estimator
    if fitted.task == TRANSFORMER:
        return {outputs[0]: np.asarray(estimator.transform(rows))}
    found = {outputs[0]: np.asarray(estimator.predict(rows))}
    if fitted.task == CLASSIFIER and len(outputs) > 1:
        scores = estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.decision_function
        found[outputs[1]] = np.asarray(scores(rows))
    return found


def _alike(found: Array, expected: Array) -> Array:
    """A column where the estimator has no second dimension, and the other way round."""
    return found.reshape(expected.shape) if found.size == expected.size else found


def _labels(order: Order, fitted: Fitted, folder_path: Path) -> Mapping[str, Any]:
    output = graphs.first_floats(graphs.outputs(graphs.session(folder_path / graphs.GRAPH_FILE)))
    if fitted.task != CLASSIFIER or output is None:
        return {}
    names = folder.read_labels(order.labels) if order.labels else [str(one) for one in fitted.estimator.classes_]
    return folder.write_labels(folder_path, names, output.name)


def _facts(order: Order, fitted: Fitted) -> dict[str, str]:
    steps = getattr(fitted.estimator, "steps", None)
    model = " → ".join(type(step).__name__ for _, step in steps) if steps else type(fitted.estimator).__name__
    made = ", ".join(f"{name} {version}" for name, version in versions("scikit-learn", "skl2onnx").items())
    return {"Source": trust.told(order.source), "Model": model, "Framework": made}
