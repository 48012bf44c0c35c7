"""TensorFlow: a SavedModel, or a .keras or .h5 file, converted in an environment of its own by tensorflow_child.py."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from millrace.exporting import children, environment, folder, graphs, trust
from millrace.exporting.built import Built, Plan
from millrace.exporting.manifest import size
from millrace.exporting.order import Order, Precision, check_precision
from millrace.exporting.parity import Array, Comparison, Parity, compare, limits
from millrace.exporting.stages import Stages

CHILD = Path(__file__).parents[1] / "tensorflow_child.py"


class TensorFlow:
    """Implements `Source`."""

    def plan(self, order: Order) -> Plan:
        check_precision(order, Precision.FP32, Precision.FP16)
        source = Path(order.source)
        if not source.exists():
            raise ValueError(f"{order.source}: there is no such file")
        weights = size(source) if source.is_dir() else source.stat().st_size
        return Plan(disk_bytes=3 * weights, memory_bytes=5 * weights)

    def build(self, order: Order, folder_path: Path, stages: Stages) -> Built:
        ready = environment.is_complete(order.environments)
        with stages.stage("TensorFlow's environment" if ready else "install TensorFlow, once"):
            python = environment.python(order.environments, stages.say)
        with tempfile.TemporaryDirectory(dir=folder_path.parents[1]) as work, stages.stage("tf2onnx"):
            answer = _convert(python, order, Path(work), stages)
            graphs.save(_graph(Path(work), answer), folder_path)
            if order.precision is Precision.FP16:
                graphs.halve(folder_path / graphs.GRAPH_FILE)
            parity = _compare(Path(work), answer, folder_path, order)
        return Built(
            parity=parity, task="tensor", keys=folder.given_labels(order, folder_path), facts=_facts(order, answer)
        )


def _convert(python: Path, order: Order, work: Path, stages: Stages) -> Mapping[str, Any]:
    """The child's last message, with `runs`: what each comparison is of. Raises ValueError with its sentence."""
    told: list[dict[str, Any]] = []

    def hear(line: str) -> None:
        if line.startswith('{"'):
            told.append(json.loads(line))
            stages.say(told[-1].get("stage", "compare with TensorFlow"))

    asked = {
        "source": str(Path(order.source).absolute()),
        "folder": str(work),
        "samples": None if order.samples is None else str(order.samples.absolute()),
        "trust_code": order.trust_code,
    }
    (work / "order.json").write_text(json.dumps(asked))
    tail = children.Tail(hear)
    status = children.run([str(python), "-I", str(CHILD), str(work / "order.json")], tail)
    last = told[-1] if told else {}
    if status or "inputs" not in last:
        raise ValueError(str(last.get("error") or f"TensorFlow's process ended with status {status}: {tail.last}"))
    return {**last, "runs": [message["run"] for message in told if "run" in message]}


def _graph(work: Path, answer: Mapping[str, Any]) -> onnx.ModelProto:
    """With the names that Keras, or the signature, has for inputs and outputs."""
    model = onnx.load(work / "model.onnx")
    ports = model.graph.output
    names = {port.name: name for port, name in zip(ports, answer["outputs"], strict=True)}
    names |= {port.name: port.name.removesuffix(":0") for port in model.graph.input}
    graphs.rename(model, names)
    graphs.name_batch(model)
    return model


def _compare(work: Path, answer: Mapping[str, Any], folder_path: Path, order: Order) -> Parity:
    opened = graphs.session(folder_path / graphs.GRAPH_FILE)
    comparisons: list[Comparison] = []
    for index, given in enumerate(answer["runs"]):
        with np.load(work / f"run-{index}.npz", allow_pickle=False) as arrays:
            inputs, expected = _part(arrays, "in:"), _part(arrays, "out:")
        taken = {port.name: inputs[port.name] for port in graphs.inputs(opened)}
        comparisons += compare(given, expected, graphs.run(opened, taken))
    return Parity(limits=limits(order.precision, order.tolerance), comparisons=comparisons)


def _part(arrays: Mapping[str, Any], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}


def _facts(order: Order, answer: Mapping[str, Any]) -> dict[str, str]:
    made: Sequence[str] = [f"{name} {version}" for name, version in answer["versions"].items()]
    return {"Source": trust.told(order.source), "Model": answer["model"], "Framework": ", ".join(made)}
