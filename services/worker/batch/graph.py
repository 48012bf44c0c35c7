"""What an ONNX graph takes and gives, read from the file itself, and whether its rows are independent of each other."""

import math
import threading
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from millrace.engine import Signature
from millrace.tensors import ANY, BYTES, TensorSpec

Array = npt.NDArray[Any]
Feed = dict[str, Array]

DATATYPES: dict[str, tuple[str, npt.DTypeLike]] = {
    "tensor(bool)": ("BOOL", np.bool_),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(int16)": ("INT16", np.int16),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(uint16)": ("UINT16", np.uint16),
    "tensor(uint32)": ("UINT32", np.uint32),
    "tensor(uint64)": ("UINT64", np.uint64),
    "tensor(float16)": ("FP16", np.float16),
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
    "tensor(string)": (BYTES, np.object_),
}
BF16 = "BF16"
ROWS = "rows"
"""What the first dimension of a batched graph's ports is called here, whatever the graph calls it."""
MOST_DIMENSIONS = 64
"""Numpy's own bound."""
TRIAL_SIZES = (8, 32, 224)
"""What a dimension of any size is tried with: texts are fine with the first, convolutions with the last."""
TRIAL_SAMPLES = 16_000
"""What inputs of floats with one further dimension are tried with too: they may be sounds."""
TRIAL_BYTES = 256 << 20
"""Of one row; of a graph with a larger one nothing is found out."""
TRIAL_S = 60.0
"""What one trial may take: a graph may hold a loop without an end."""
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output. A dimension is a size, or the graph's name for one of any size."""

    name: str
    datatype: str
    dtype: np.dtype[Any]
    """Of its arrays: float32 for BF16."""
    dims: tuple[int | str, ...]

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, self.datatype, tuple(ANY if isinstance(dim, str) else dim for dim in self.dims))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All of a graph's inputs and outputs."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batched: bool
    """The first dimension of every one of them counts rows that do not know of each other."""

    def signature(self, max_rows: int) -> Signature:
        return Signature(
            inputs=tuple(port.spec for port in self.inputs),
            outputs=tuple(port.spec for port in self.outputs),
            max_batch_size=max_rows if self.batched else 0,
        )


def read(session: ort.InferenceSession, bfloat16: Container[str] = ()) -> Ports:
    """Raises ValueError for a graph with anything but tensors of the protocol's types. `bfloat16` names the ports of
    FP32 that stand for such of BF16.

    Rows are batched where the first dimension of every port may have any size and two rows give together what they give
    apart. A graph that takes none of the trial inputs is believed where it calls all those dimensions the same.
    """
    inputs = tuple(_port(argument, bfloat16) for argument in session.get_inputs())
    outputs = tuple(_port(argument, bfloat16) for argument in session.get_outputs())
    firsts = {port.dims[0] if port.dims else 1 for port in (*inputs, *outputs)}
    batched = bool(inputs) and all(isinstance(first, str) for first in firsts)
    if batched and (verdict := rows_are_independent(session, inputs)) is not None:
        batched = verdict
    else:
        batched = batched and len(firsts) == 1
    if batched:
        inputs, outputs = tuple(map(_by_row, inputs)), tuple(map(_by_row, outputs))
    return Ports(inputs=inputs, outputs=outputs, batched=batched)


def rows_are_independent(session: ort.InferenceSession, inputs: Sequence[Port]) -> bool | None:
    """Runs two rows apart and together; None where no trial input could be run. Raises ValueError where a run has no
    end."""
    may_be_sounds = all(port.dtype.kind == "f" and len(port.dims) == 2 for port in inputs)
    for size in (*TRIAL_SIZES, TRIAL_SAMPLES) if may_be_sounds else TRIAL_SIZES:
        if trial_bytes(inputs, size) > TRIAL_BYTES:
            continue
        apart = [trial(inputs, size, row) for row in (0, 1)]
        together = {name: np.concatenate([feed[name] for feed in apart]) for name in apart[0]}
        try:
            expected = zip(*(_run(session, feed) for feed in apart), strict=True)
            found = _run(session, together)
        except TimeoutError as error:
            raise ValueError(str(error)) from None
        except Exception:  # ONNX Runtime's errors have no base of their own, and any of them means the same here
            continue
        return all(_equal(rows, both) for rows, both in zip(expected, found, strict=True))
    return None


def _run(session: ort.InferenceSession, feed: Feed) -> list[Array]:
    """Raises TimeoutError, and whatever the runtime raises."""
    options = ort.RunOptions()
    watch = threading.Timer(TRIAL_S, setattr, (options, "terminate", True))
    watch.start()
    try:
        outputs: list[Array] = session.run(None, feed, options)
        return outputs
    except Exception:
        if options.terminate:
            raise TimeoutError(f"the graph takes more than {TRIAL_S:g} s for a trial of one or two rows") from None
        raise
    finally:
        watch.cancel()


def trial_bytes(inputs: Sequence[Port], size: int) -> int:
    """What `trial` makes."""
    return sum(
        math.prod(size if isinstance(dim, str) else dim for dim in port.dims[1:]) * port.dtype.itemsize
        for port in inputs
    )


def trial(inputs: Sequence[Port], size: int, value: int) -> Feed:
    """A request of one row full of one value, with every further dimension of any size at `size`."""
    return {
        port.name: np.full(
            (1, *(size if isinstance(dim, str) else dim for dim in port.dims[1:])),
            str(value) if port.datatype == BYTES else value,
            port.dtype,
        )
        for port in inputs
    }


def _equal(rows: Sequence[Array], found: Array) -> bool:
    if any(row.ndim == 0 or row.shape[0] != 1 for row in rows):
        return False
    expected = np.concatenate(rows)
    if expected.shape != found.shape:
        return False
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, found))
    return bool(np.allclose(expected, found, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))


def _by_row(port: Port) -> Port:
    return replace(port, dims=(ROWS, *port.dims[1:]))


def _port(argument: ort.NodeArg, bfloat16: Container[str]) -> Port:
    if argument.type not in DATATYPES:
        raise ValueError(f"{argument.name} is a {argument.type}: only tensors of {', '.join(_names())} are served")
    if len(argument.shape) > MOST_DIMENSIONS:
        raise ValueError(f"{argument.name} has {len(argument.shape)} dimensions: at most {MOST_DIMENSIONS} are served")
    datatype, dtype = DATATYPES[argument.type]
    dims = tuple(
        dim if isinstance(dim, int) else dim or f"{argument.name}.{axis}" for axis, dim in enumerate(argument.shape)
    )
    datatype = BF16 if argument.name in bfloat16 else datatype
    return Port(name=argument.name, datatype=datatype, dtype=np.dtype(dtype), dims=dims)


def _names() -> list[str]:
    return [*(datatype for datatype, _ in DATATYPES.values()), BF16]
