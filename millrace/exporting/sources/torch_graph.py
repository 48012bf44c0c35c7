"""A traced PyTorch module as an ONNX graph, and how far that is from the module."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch.export import Dim

from millrace.exporting import graphs
from millrace.exporting.feeds import Feed, random_feeds
from millrace.exporting.order import Order
from millrace.exporting.parity import Comparison, Parity, Tensors, limits
from millrace.exporting.parity import compare as compare_tensors
from millrace.exporting.sources.traced import Example


def write(traced: Example, folder: Path) -> None:
    """The module's graph, by `torch.export`. Raises ValueError where that cannot trace it."""
    is_program = isinstance(traced.module, torch.export.ExportedProgram)
    inputs = traced.inputs if is_program else {name: _two_rows(one) for name, one in traced.inputs.items()}
    outputs = list(run(traced, traced.inputs))
    try:
        with _silence():
            program = torch.onnx.export(
                traced.module,
                tuple(inputs.values()) if is_program else (),
                kwargs={} if is_program else dict(inputs),
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=None if is_program else (traced.shapes or batch_shapes(inputs)),
                opset_version=graphs.OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the module's own code raises is among them
        raise ValueError(f"torch.export cannot trace the module: {_reason(error)}") from error
    graphs.save(program.model_proto, folder)


def run(traced: Example, inputs: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """The original's outputs, by name."""
    module = traced.module.module() if isinstance(traced.module, torch.export.ExportedProgram) else traced.module
    with torch.inference_mode():
        if isinstance(traced.module, torch.export.ExportedProgram):
            return named(module(*inputs.values()))
        return named(module(**inputs))


def named(outputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Of a tensor, of several, or of a mapping of them."""
    if isinstance(outputs, torch.Tensor):
        outputs = {"output": outputs}
    elif not isinstance(outputs, Mapping):
        outputs = {f"output_{index}": one for index, one in enumerate(outputs)}
    return {name: _array(one) for name, one in outputs.items() if isinstance(one, torch.Tensor)}


def compare(traced: Example, opened: ort.InferenceSession, order: Order, given: Sequence[Feed]) -> Parity:
    """On the example, on random inputs of other sizes, and on those that are given. Random sizes that the module itself
    does not take are left out."""
    example = Feed(given="example", tensors={name: _array(one) for name, one in traced.inputs.items()})
    integers = [int(one.max()) for one in traced.inputs.values() if not one.is_floating_point() and one.numel()]
    drawn = random_feeds(graphs.inputs(opened), high=max(1, *integers, 1) + 1)
    comparisons: list[Comparison] = []
    for feed, must in [(example, True), *((one, True) for one in given), *((one, False) for one in drawn)]:
        comparisons += _compare(traced, opened, feed, must)
    return Parity(limits=limits(order.precision, order.tolerance), comparisons=comparisons)


def _compare(traced: Example, opened: ort.InferenceSession, feed: Feed, must: bool) -> Iterator[Comparison]:
    """Raises ValueError where the original takes the inputs and the graph does not."""
    try:
        expected: Tensors = run(traced, {name: torch.from_numpy(np.asarray(one)) for name, one in feed.tensors.items()})
    except Exception as error:  # the module's own
        if must:
            raise ValueError(f"the module fails on the {feed.given}: {_reason(error)}") from error
        return
    yield from compare_tensors(feed.given, expected, graphs.run(opened, feed.tensors))


def batch_shapes(inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The first dimension of each input is the batch, all others are as they are."""
    batch = Dim(graphs.BATCH)
    return {name: {0: batch} if one.dim() else {} for name, one in inputs.items()}


def _two_rows(one: torch.Tensor) -> torch.Tensor:
    """torch.export takes a size of 1 for a constant."""
    return torch.cat([one, one]) if one.dim() and one.shape[0] == 1 else one


def _array(one: torch.Tensor) -> np.ndarray[Any, Any]:
    one = one.detach().cpu()
    return np.asarray(one.float() if one.dtype is torch.bfloat16 else one)


def _reason(error: Exception) -> str:
    """The first line that says something: of the error that is behind the others."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:400]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
