"""PyTorch: a function that answers a module and example inputs, or a program that `torch.export` saved.

def model():
    return module, (example,)                              # the first dimension is the batch
    return module, {"ids": ids}, {"ids": {0: BATCH, 1: TOKENS}}    # dynamic shapes as torch.export takes them
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from millrace.exporting import called, feeds, folder, graphs, trust
from millrace.exporting.built import Built, Plan
from millrace.exporting.order import Order, Precision, check_precision
from millrace.exporting.packages import need, versions
from millrace.exporting.sources.traced import Example
from millrace.exporting.stages import Stages

PROGRAM = ".pt2"


class Torch:
    """Implements `Source`. `made`: what the function answered already."""

    def __init__(self, made: Any = None) -> None:
        self._made = made
        self._example: Example | None = None

    def plan(self, order: Order) -> Plan:
        need(("torch", "onnxscript"), "a model of PyTorch")
        check_precision(order, Precision.FP32, Precision.FP16)
        if Path(order.source).suffix == PROGRAM:
            trust.need_trusted_pickle(order)
            weights = Path(order.source).stat().st_size
        else:
            self._example = example(called.call(order.source) if self._made is None else self._made, order.source)
            weights = _weights_bytes(self._example.module)
        return Plan(disk_bytes=2 * weights, memory_bytes=3 * weights)

    def build(self, order: Order, folder_path: Path, stages: Stages) -> Built:
        from millrace.exporting.sources import torch_graph

        with stages.stage("read the module"):
            traced = self._example or read_program(Path(order.source))
        with stages.stage("torch.export"):
            torch_graph.write(traced, folder_path)
            if order.precision is Precision.FP16:
                graphs.halve(folder_path / graphs.GRAPH_FILE)
        opened = graphs.session(folder_path / graphs.GRAPH_FILE)
        given = [] if order.samples is None else [feeds.read_samples(order.samples, graphs.inputs(opened))]
        with stages.stage("compare with PyTorch"):
            parity = torch_graph.compare(traced, opened, order, given)
        return Built(
            parity=parity,
            task="tensor",
            keys=folder.given_labels(order, folder_path),
            facts=_facts(order, traced),
        )


def example(made: Any, source: str) -> Example:
    """What a function answered. Raises ValueError where that is no module with its inputs."""
    import torch

    parts = made if isinstance(made, tuple) else (made,)
    if not isinstance(parts[0], torch.nn.Module) or len(parts) not in (2, 3):
        raise ValueError(f"{source}: must return (module, example inputs) or (module, example inputs, dynamic shapes)")
    names = list(inspect.signature(parts[0].forward).parameters)
    given = (parts[1],) if isinstance(parts[1], torch.Tensor) else parts[1]
    inputs = dict(given) if isinstance(given, Mapping) else dict(zip(names, given, strict=False))
    if not inputs or not all(isinstance(one, torch.Tensor) for one in inputs.values()):
        raise ValueError(f"{source}: the example inputs must be tensors, one for each of {', '.join(names)}")
    shapes = parts[2] if len(parts) == 3 else None
    if shapes is not None and not isinstance(shapes, Mapping):
        shapes = dict(zip(inputs, shapes, strict=False))
    return Example(module=parts[0].eval(), inputs=inputs, shapes=shapes)


def read_program(path: Path) -> Example:
    """A file of `torch.export.save`. Raises ValueError where it is none."""
    import torch

    try:
        program = torch.export.load(path)
    except Exception as error:  # whatever its many readers raise
        raise ValueError(f"{path.name}: torch.export cannot load it: {error}") from error
    arguments, named = program.example_inputs or ((), {})
    names = list(program.graph_signature.user_inputs)
    inputs = dict(zip(names, (*arguments, *named.values()), strict=False))
    if len(inputs) != len(names) or not all(isinstance(one, torch.Tensor) for one in inputs.values()):
        raise ValueError(f"{path.name}: must hold example inputs, which are tensors")
    return Example(module=program, inputs=inputs)


def _weights_bytes(module: Any) -> int:
    return sum(one.numel() * one.element_size() for one in (*module.parameters(), *module.buffers()))


def _facts(order: Order, traced: Example) -> dict[str, str]:
    made = ", ".join(f"{name} {version}" for name, version in versions("torch", "onnxscript").items())
    return {"Source": trust.told(order.source), "Model": type(traced.module).__name__, "Framework": made}
