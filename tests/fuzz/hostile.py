"""Folders that are not what they seem: tensors whose data lies elsewhere, links, pipes, devices, odd names.

A secret lies outside of the repository. Whatever is loaded, none of its bytes may come out of the graph, and nothing
that is not a plain file may lie in a folder that is served.
"""

import json
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from millrace.engine import Engine
from millrace.oip.inference_pb2 import ModelInferResponse
from services.worker.batch import BatchEngine
from services.worker.generation import GenerationEngine
from tests import graphs
from tests.fuzz.folders import loaded
from tests.fuzz.target import Target, must
from tests.fuzz.tensors import answered, request
from tests.fuzz.things import PLAIN, THINGS
from tests.models import write_model
from tests.worker.steps import leased

SECRET = b"\x53\x45\x43\x52" * 64
OWN = b"\x00\x00\x80\x3f" * 64
"""The model's own data: ones."""
DECODER_DATA = "model.onnx.data"
LOCATIONS = (
    *(
        "own",
        "own",
        "own",
        "./own",
        "sub/own",
        "sub/../own",
        "model.onnx",
        "own/",
        "own\0",
        "own\0/../../secret",
        "missing",
    ),
    *(
        "../../../secret",
        "sub/../../../../secret",
        "ABSOLUTE",
        "file://ABSOLUTE",
        "/proc/self/environ",
        "/proc/self/mem",
    ),
    *(
        "/dev/zero",
        "/dev/stdin",
        "/etc/passwd",
        "",
        ".",
        "..",
        "/",
        "sub",
        "~/secret",
        "..\\..\\secret",
        "%2e%2e/secret",
    ),
    *("*/_ORT_MEM_ADDR_/*", "*/_ORT_NATIVE_ENDIAN_MEM_ADDR_/*", "x" * 300, "../" * 100 + "etc/passwd", "ü", "own,own"),
)
NUMBERS = (
    *(None, None, None, "0", "4", "16", "240", "256", "4096", "-1", "-4", "-16", "2147483648", "4294967296"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551612", "1e3", "0x10", "abc", "", " 4", "4\0"),
)
SHAPES: Sequence[Sequence[int]] = (
    [4],
    [4],
    [4],
    [4],
    [0],
    [],
    [64],
    [1, 4],
    [2**20],
    [2**40],
    [2**62, 4],
    [2**32, 2**32],
    [-1],
    [-4, -1],
)
TYPES = (*(TensorProto.FLOAT,) * 8, TensorProto.INT32, TensorProto.STRING, TensorProto.DOUBLE, TensorProto.INT4, 0, 99)
PLACES = ("initializer", "initializer", "constant", "branch", "sparse", "twice")
Plan = Mapping[str, Any]


class HostileFolder(Target):
    """An input is what a folder holds, as JSON."""

    name, share = "hostile", 1_200
    growth_bytes = 256 << 20

    def open(self, stack: ExitStack) -> None:
        self._root = Path(stack.enter_context(TemporaryDirectory()))

    @cached_property
    def known(self) -> Sequence[bytes]:
        """Each location, number, shape and thing by itself, and then decoders."""
        plans: list[dict[str, Any]] = [{}]
        plans += [
            {"location": location, "place": place} for place in set(PLACES) for location in dict.fromkeys(LOCATIONS)
        ]
        plans += [{field: number} for field in ("offset", "length") for number in NUMBERS[3:]]
        plans += [{"dims": dims} for dims in SHAPES]
        plans += [{"thing": thing, "at": at} for thing in THINGS for at in ("own", "more", "sub/own", "model.yaml")]
        plans += [{"decoder": True, "location": location} for location in dict.fromkeys((DECODER_DATA, *LOCATIONS))]
        return [json.dumps(plan).encode() for plan in plans]

    def mutant(self, dice: random.Random) -> bytes:
        """A few things at a time are not as they should be."""
        plan: dict[str, Any] = {
            "location": dice.choice(LOCATIONS),
            "place": dice.choice(PLACES),
            "offset": dice.choice(NUMBERS),
            "length": dice.choice(NUMBERS),
            "dims": dice.choice(SHAPES),
            "type": dice.choice(TYPES),
            "second": dice.choice(LOCATIONS),
            "thing": dice.choice(list(THINGS)),
        }
        chosen = {key: plan[key] for key in dice.sample(list(plan), dice.choice((1, 2, 2, 3, 4)))}
        return json.dumps(chosen | {"at": dice.choice(("own", "more", "sub/own", "model.onnx"))}).encode()

    def run(self, data: bytes) -> bool:
        """Whether the model is served."""
        plan = json.loads(data)
        with TemporaryDirectory(dir=self._root) as folder:
            secret = Path(folder) / "secret"
            secret.write_bytes(SECRET)
            version = self.write(plan, secret)
            thing = plan.get("thing", "nothing")
            target = version / plan.get("at", "more")
            place_thing(target, thing, secret)
            engine = loaded(version.parents[1])
            if engine is None:
                return False
            must(thing in PLAIN or not os.path.lexists(target), f"a folder with a {thing} is served")
            must(not plan.get("decoder") or _is_inside(version, plan["location"]), "a decoder's weights lie elsewhere")
            must(SECRET[:4] not in output_of(engine), "the secret has come out")
            self.check(version)
            return True

    def write(self, plan: Plan, secret: Path) -> Path:
        """The version's folder."""
        return write_decoder(plan, secret) if plan.get("decoder") else write_folder(plan, secret)

    def check(self, version: Path) -> None:
        """What else must hold of a model that is served. Raises Finding."""


def place_thing(target: Path, thing: str, secret: Path) -> None:
    if thing != "nothing":
        with suppress(FileNotFoundError):
            target.unlink()
        THINGS[thing](target, secret)


def write_folder(plan: Plan, secret: Path) -> Path:
    """A graph that adds a tensor of external data to its input."""
    version = graphs.write_graph(secret.parent / "models", "tested", build(plan, secret))
    (version / "sub").mkdir()
    for path in (version / "own", version / "sub" / "own"):
        path.write_bytes(OWN)
    return version


def write_decoder(plan: Plan, secret: Path) -> Path:
    version = write_model(secret.parent / "models", name="tested")
    model = onnx.load(version / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for pair in tensor.external_data:
            if pair.key == "location":
                pair.value = _location(plan["location"], secret)
    (version / "own").write_bytes((version / DECODER_DATA).read_bytes())
    (version / "model.onnx").write_bytes(model.SerializeToString())
    return version


def build(plan: Plan, secret: Path) -> onnx.ModelProto:
    tensor = _tensor("w", plan, secret)
    place = plan.get("place", "initializer")
    ports = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"}
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    fields: dict[str, Any] = {"initializer": [tensor]}
    if place == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
        fields = {}
    elif place == "branch":
        nodes, fields = _branch(tensor), {}
    elif place == "sparse":
        indices = helper.make_tensor("i", TensorProto.INT64, [4], range(4))
        sparse = onnx.SparseTensorProto(values=tensor, indices=indices, dims=[4])
        fields = {"sparse_initializer": [sparse]}
    elif place == "twice":
        nodes = [helper.make_node("Add", ["x", "w"], ["v"]), helper.make_node("Sub", ["v", "w2"], ["y"])]
        fields = {"initializer": [tensor, _tensor("w2", {"location": "own", "offset": "4"}, secret)]}
    graph = helper.make_graph(nodes, "test", [ports["x"]], [ports["y"]], **fields)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _branch(tensor: onnx.TensorProto) -> list[onnx.NodeProto]:
    """The tensor belongs to a graph within the graph."""
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, ["batch", 4])
    body = helper.make_graph([helper.make_node("Add", ["x", "w"], ["o"])], "then", [], [out], [tensor])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "else", [], [out])
    truth = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    return [truth, helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=other)]


def _tensor(name: str, plan: Plan, secret: Path) -> onnx.TensorProto:
    tensor = TensorProto(
        name=name,
        data_type=plan.get("type", TensorProto.FLOAT),
        dims=plan.get("dims", [4]),
        data_location=TensorProto.EXTERNAL,
    )
    pairs = [("location", plan.get("location", "own")), ("offset", plan.get("offset")), ("length", plan.get("length"))]
    for key, value in (*pairs, ("location", plan.get("second"))):
        if value is not None:
            tensor.external_data.add(key=key, value=_location(value, secret))
    return tensor


def _is_inside(version: Path, location: str) -> bool:
    """A location ends at its first NUL, as C reads it."""
    path = Path(os.path.normpath(version / location.split("\0")[0]))
    return path.is_file() and path.is_relative_to(version)


def _location(text: str, secret: Path) -> str:
    return text.replace("ABSOLUTE", str(secret))


def output_of(engine: Engine) -> bytes:
    """All that the graph gives for an input of zeros."""
    if isinstance(engine, GenerationEngine):
        return b""
    assert isinstance(engine, BatchEngine)
    engine.add(leased("a", request("tested", {"x": np.zeros((1, 4), np.float32)})))
    (output,) = engine.step() or ()
    response = output.result() if callable(output.result) else ModelInferResponse()
    assert isinstance(response, ModelInferResponse)
    return b"".join(array.tobytes() for array in answered(response).values())
