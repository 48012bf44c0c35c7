"""Graphs of tensors: accuracy over labelled rows, batches as the batch engine forms them."""

import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnxruntime as ort

from millrace.exporting import graphs as exported
from millrace.exporting.feeds import Port
from millrace.exporting.parity import Array, Tensors
from millrace.optimizing.subjects.rows import Given, Rows, is_too_large, random_rows
from millrace.optimizing.subjects.subject import Metric
from millrace.optimizing.version import Version

SIZES = (32, 8, 224, 16_000)
"""What a dimension of any size is tried with where there is no data: of tokens or frames, of images, of a second of
sound."""
PROBES = 64
"""Rows that outputs are compared on."""
TOLERANCE = 1e-4
"""Within which a worker takes rows for independent."""


class TensorSubject:
    """Raises ValueError where there are labels, and no output that they could be compared with."""

    unit = "rows"

    def __init__(self, version: Version, session: ort.InferenceSession, rows: Rows) -> None:
        self._version, self._session, self._rows = version, session, rows
        self._outputs = exported.outputs(session)
        self.metric = Metric.ACCURACY if rows.labels is not None else None
        self._scores = self._scored() if rows.labels is not None else None
        self._names = _label_names(version, self._scores)
        self._batched = is_batched(session, rows)

    def row_counts(self) -> list[int]:
        if self._fixed_rows:
            return [self._fixed_rows]
        most = int((self._version.described.get("batching") or {}).get("max_rows", 32)) if self._batched else 1
        return [rows for rows in (1, 2, 4, 8, 16, 32, 64) if rows < most] + [min(most, 64)]

    def probe(self) -> Iterator[Tensors]:
        size = max(self._fixed_rows, 1)
        for start in range(0, min(self._rows.count, PROBES) - size + 1, size):
            yield exported.run(self._session, self._rows.feed(range(start, start + size)))

    def judge(self) -> Iterator[tuple[float, int]]:
        """Of a graph with a fixed number of rows, what remains at the end is left out."""
        step = self.row_counts()[-1]
        end = self._rows.count - self._rows.count % step if self._fixed_rows else self._rows.count
        for start in range(0, end, step):
            chosen = range(start, min(start + step, end))
            outputs = exported.run(self._session, self._rows.feed(chosen))
            yield self._right(outputs, chosen), len(chosen)

    def repeat(self, rows: int) -> Callable[[], object]:
        feed = dict(self._rows.feed([index % self._rows.count for index in range(rows)]))
        return lambda: self._session.run(None, feed)

    @property
    def _fixed_rows(self) -> int:
        """0: any number of rows."""
        first = next((port.dims[0] for port in exported.inputs(self._session) if port.dims), 1)
        return first if isinstance(first, int) else 0

    def _scored(self) -> Port:
        said = (self._version.described.get("classes") or {}).get("output")
        found = [port for port in self._outputs if port.dtype.kind == "f" and len(port.dims) == 2]
        chosen = [port for port in found if said is None or port.name == said]
        if len(chosen) != 1:
            raise ValueError("which output the labels are compared with is not clear: say classes.output in model.yaml")
        return chosen[0]

    def _right(self, outputs: Tensors, chosen: Sequence[int]) -> int:
        if self._scores is None or self._rows.labels is None:
            return 0
        best = outputs[self._scores.name].argmax(axis=-1).tolist()
        wanted = [self._rows.labels[index] for index in chosen]
        return sum(label in (str(i), self._names.get(i)) for i, label in zip(best, wanted, strict=True))


def feeds(rows: Rows) -> Iterator[Tensors]:
    """One row after the other, for calibration."""
    return (rows.feed([index]) for index in range(rows.count))


def runnable(session: ort.InferenceSession) -> Given:
    """Random rows of a size that the graph takes. Raises ValueError where it takes none."""
    problem, ports = "", exported.inputs(session)
    for size in SIZES:
        if is_too_large(ports, size):
            continue
        rows = random_rows(ports, size)
        try:
            exported.run(session, rows.feed([0]))
            return rows
        except ValueError as error:
            problem = str(error)
    raise ValueError(f"the graph takes no random inputs: give some with --data FILE.npz: {problem}")


def is_batched(session: ort.InferenceSession, rows: Rows) -> bool:
    """Whether a worker would put rows of different requests into one run: it tries a row of zeros and one of ones."""
    ports = [*exported.inputs(session), *exported.outputs(session)]
    if any(not port.dims or not isinstance(port.dims[0], str) for port in ports):
        return False
    first = rows.feed([0])
    apart = [{name: np.full_like(array, value) for name, array in first.items()} for value in (0, 1)]
    together = {name: np.concatenate([feed[name] for feed in apart]) for name in first}
    expected, found = [exported.run(session, feed) for feed in apart], exported.run(session, together)
    return all(
        _equal([feed[name] for feed in expected], array) for name, array in found.items() if array.dtype.kind != "O"
    )


def _equal(rows: Sequence[Array], found: Array) -> bool:
    together = np.concatenate(rows)
    if together.shape != found.shape:
        return False
    return bool(np.allclose(together, found, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=found.dtype.kind == "f"))


def _label_names(version: Version, scores: Port | None) -> dict[int, str]:
    """By place: the file of `labels`, else id2label of config.json."""
    labels = version.described.get("labels") or {}
    if scores is not None and scores.name in labels:
        return dict(enumerate((version.folder / labels[scores.name]).read_text().splitlines()))
    config = version.folder / "config.json"
    named = json.loads(config.read_text()).get("id2label", {}) if config.is_file() else {}
    return {int(place): str(name) for place, name in named.items()}
