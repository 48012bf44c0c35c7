"""MODULE:FUNCTION whose framework shows in what it answers: an estimator of scikit-learn, else a module of PyTorch."""

from pathlib import Path
from typing import Any

from millrace.exporting import called
from millrace.exporting.built import Built, Plan, Source
from millrace.exporting.order import Order
from millrace.exporting.stages import Stages


class Function:
    """Implements `Source` by the framework's own."""

    def __init__(self) -> None:
        self._source: Source | None = None

    def plan(self, order: Order) -> Plan:
        made = called.call(order.source)
        self._source = _source(made)
        return self._source.plan(order)

    def build(self, order: Order, folder: Path, stages: Stages) -> Built:
        assert self._source is not None
        return self._source.build(order, folder, stages)


def _source(made: Any) -> Source:
    first = made[0] if isinstance(made, tuple) and made else made
    if any(base.__module__.partition(".")[0] == "sklearn" for base in type(first).__mro__):
        from millrace.exporting.sources.sklearn import Sklearn

        return Sklearn(made)
    from millrace.exporting.sources.torch import Torch

    return Torch(made)
