"""Runs in TensorFlow's own environment, where nothing of Millrace is: `python -I tensorflow_child.py ORDER.json`.

ORDER.json: {"source", "folder", "samples" or null, "trust_code"}. Writes model.onnx to `folder` and, for each
comparison, run-N.npz with arrays `in:NAME` and `out:NAME`. Each line of standard output that begins with a brace is for
the parent:

    {"stage": "read the model"}
    {"run": "3 × 32"}                      of run-N.npz, in order
    {"inputs": […], "outputs": […], "model": "Sequential", "versions": {…}}    the last one
    {"error": "sentence"}                  or this
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

OPSET = 18
ROWS, LENGTHS = (1, 3, 8), (5, 32, 47)
SEED = 5
PR_SET_PDEATHSIG = 1
Call = Callable[..., Mapping[str, Any]]


def tell(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main(order: Mapping[str, Any]) -> None:
    """Raises ValueError with a sentence, and whatever TensorFlow raises."""
    tell(stage="read the model")
    call, specs, name = load(Path(order["source"]), order["trust_code"])
    tell(stage="tf2onnx")
    outputs = convert(call, specs, Path(order["folder"]) / "model.onnx")
    tell(stage="run TensorFlow")
    write_runs(call, specs, outputs, order)
    tell(inputs=[spec.name for spec in specs], outputs=outputs, model=name, versions=versions())


def load(source: Path, trust_code: bool) -> tuple[Call, list[Any], str]:
    """What to call with the inputs in their order, which answers outputs by name; the inputs; and what it is."""
    return load_saved(source) if source.is_dir() else load_keras(source, trust_code)


def load_keras(source: Path, trust_code: bool) -> tuple[Call, list[Any], str]:
    import keras
    import tensorflow as tf

    try:
        model = keras.models.load_model(source, compile=False, safe_mode=not trust_code)
    except Exception as error:  # of many kinds
        advice = "; --trust-code runs the code that is in it" if "unsafe" in str(error).lower() else ""
        raise ValueError(f"Keras cannot load {source.name}: {first_line(error)}{advice}") from error
    names = [tensor.name for tensor in model.inputs]
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in zip(names, model.inputs, strict=True)
    ]
    outputs = output_names(model)

    def call(*tensors: Any) -> Mapping[str, Any]:
        found = tf.nest.flatten(model(list(tensors) if len(tensors) > 1 else tensors[0], training=False))
        return dict(zip(outputs, found, strict=True))

    return call, specs, type(model).__name__


def output_names(model: Any) -> list[str]:
    """As the model calls them, else as the layers that make them are called."""
    named = list(getattr(model, "output_names", ()))
    named = named or [tensor._keras_history.operation.name for tensor in model.outputs]
    return named if len(set(named)) == len(named) else [f"output_{index}" for index in range(len(named))]


def load_saved(source: Path) -> tuple[Call, list[Any], str]:
    import tensorflow as tf

    loaded = tf.saved_model.load(source)
    signatures = getattr(loaded, "signatures", {})
    if not signatures:
        raise ValueError(f"{source.name}: has no signature; export it with one, model.export(…)")
    key = "serving_default" if "serving_default" in signatures else sorted(signatures)[0]
    signature = signatures[key]
    given = signature.structured_input_signature[1]
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in given.items()]

    def call(*tensors: Any) -> Mapping[str, Any]:
        keep = loaded  # its variables live as long as it does
        assert keep is not None
        found: Mapping[str, Any] = signature(**dict(zip(given, tensors, strict=True)))
        return found

    return call, specs, f"SavedModel, {key}"


def convert(call: Call, specs: Sequence[Any], path: Path) -> list[str]:
    """Writes the graph; answers the outputs' names, in the graph's order."""
    import tensorflow as tf
    import tf2onnx

    names: list[str] = []

    def function(*tensors: Any) -> list[Any]:
        found = call(*tensors)
        names[:] = list(found)
        return list(found.values())

    try:
        traced = tf.function(function, input_signature=list(specs))
        with contextlib.redirect_stdout(sys.stderr):
            tf2onnx.convert.from_function(traced, input_signature=list(specs), opset=OPSET, output_path=str(path))
    except Exception as error:  # of many kinds
        raise ValueError(f"tf2onnx cannot convert it: {first_line(error)}") from error
    bind(path, traced.get_concrete_function())
    return names


def bind(path: Path, concrete: Any) -> None:
    """Tensors that a layer keeps, as Normalization its mean, are inputs of tf2onnx's graph: they become constants."""
    import onnx
    import tensorflow as tf

    kept = {inner.name: outer.numpy() for outer, inner in concrete.graph.captures if outer.dtype != tf.resource}
    model = onnx.load(path)
    for port in [port for port in model.graph.input if port.name in kept]:
        model.graph.input.remove(port)
        model.graph.initializer.append(onnx.numpy_helper.from_array(kept[port.name], port.name))
    onnx.save(model, path)


def write_runs(call: Call, specs: Sequence[Any], outputs: Sequence[str], order: Mapping[str, Any]) -> None:
    import numpy as np

    for index, (given, inputs) in enumerate(runs(specs, order["samples"])):
        found = call(*[tensor(one, spec) for one, spec in zip(inputs.values(), specs, strict=True)])
        arrays = {f"in:{name}": one for name, one in inputs.items()}
        arrays |= {f"out:{name}": np.asarray(found[name]) for name in outputs}
        np.savez(Path(order["folder"]) / f"run-{index}.npz", **arrays)
        tell(run=given)


def runs(specs: Sequence[Any], samples: str | None) -> list[tuple[str, dict[str, Any]]]:
    """What is compared: random inputs of several sizes, and the given ones."""
    import numpy as np

    dice = np.random.default_rng(SEED)
    found = []
    for rows, length in zip(ROWS, LENGTHS, strict=True):
        inputs = {spec.name: draw(dice, spec, rows, length) for spec in specs}
        sized = any(None in spec.shape.as_list()[1:] for spec in specs)
        found.append((f"{rows} × {length}" if sized else str(rows), inputs))
    if samples is not None:
        with np.load(samples, allow_pickle=False) as arrays:
            if missing := {spec.name for spec in specs} - set(arrays.files):
                raise ValueError(f"--samples: no array {', '.join(sorted(missing))}")
            inputs = {spec.name: arrays[spec.name].astype(spec.dtype.as_numpy_dtype) for spec in specs}
        found.append((f"samples, {len(next(iter(inputs.values())))}", inputs))
    return found


def draw(dice: Any, spec: Any, rows: int, length: int) -> Any:
    if spec.shape.rank is None:
        raise ValueError(f"the input {spec.name} says nothing of its shape")
    dims = spec.shape.as_list()
    shape = [(rows if axis == 0 else length) if dim is None else dim for axis, dim in enumerate(dims)]
    dtype = spec.dtype.as_numpy_dtype
    if spec.dtype.is_floating:
        return dice.standard_normal(shape).astype(dtype)
    if spec.dtype.is_integer or spec.dtype.is_bool:
        return dice.integers(0, 2, shape).astype(dtype)
    raise ValueError(f"the input {spec.name} is of {spec.dtype.name}, of which no graph is made here")


def tensor(array: Any, spec: Any) -> Any:
    import tensorflow as tf

    return tf.constant(array, dtype=spec.dtype)


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("tensorflow-cpu", "keras", "tf2onnx")}


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:400]


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        main(json.loads(Path(sys.argv[1]).read_text()))
    except Exception as error:  # the parent tells it
        tell(error=str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {first_line(error)}")
        sys.exit(1)
