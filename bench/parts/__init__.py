"""What can be measured, by the names that the command line takes, in the order in which it runs."""

from collections.abc import Callable, Coroutine
from typing import Any

from bench.parts import generation, latency, memory, payloads, relay, tensors
from bench.report import Part
from bench.run import Run

PARTS: dict[str, Callable[[Run], Coroutine[Any, Any, Part]]] = {
    "tensors": tensors.run,
    "latency": latency.run,
    "generation": generation.run,
    "relay": relay.run,
    "bytes": payloads.run,
    "memory": memory.run,
}
