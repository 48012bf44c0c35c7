"""The parts, in the order in which they run."""

from collections.abc import Callable, Coroutine
from typing import Any

from bench.scale.parts import backlog, costs, crowd, depth, growth, held, payloads, wall
from bench.scale.report import Part
from bench.scale.stage import Run

PARTS: dict[str, Callable[[Run], Coroutine[Any, Any, Part]]] = {
    growth.NAME: growth.run,
    costs.NAME: costs.run,
    wall.NAME: wall.run,
    crowd.NAME: crowd.run,
    depth.NAME: depth.run,
    payloads.NAME: payloads.run,
    held.NAME: held.run,
    backlog.NAME: backlog.run,
}
