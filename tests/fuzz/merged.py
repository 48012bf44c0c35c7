"""ONNX files that are written as protobuf lets them be, and nobody does: a graph in several pieces, tensors whose
fields lie apart, operators of domains that nobody knows. What reads an outline must see what the runtime sees.

The secret of `hostile` may not come out, and no operator of a foreign domain may be served.
"""

import json
import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import onnx
from google.protobuf.descriptor import Descriptor
from onnx import helper

from services.worker.repository import graph_files
from tests import graphs
from tests.fuzz import hostile
from tests.fuzz.hostile import OWN, HostileFolder, Plan
from tests.fuzz.mutate import BYTES, VARINT, Field, read, write
from tests.fuzz.target import must

FOREIGN = ("evil", "com.evil", "ai.onnx.ml2", "ai.onnx\0", " ", "com.microsoft.x", "AI.ONNX", "ai.onnx.training")
WHERE = ("node", "branch", "function", "called")
LONG_BYTES = 5_000
"""More than an outline takes as it is."""


class MergedFile(HostileFolder):
    """An input is a plan as in `hostile`, with `split`, a seed that says how the file's fields are spread, 0 for not at
    all; `long`, where each node is longer than an outline takes unread; and `domain` and `where`, of an operator."""

    name, share = "merged", 1_000

    @cached_property
    def known(self) -> Sequence[bytes]:
        plans: list[Plan] = [{"split": split, "long": long} for split in (0, 1) for long in (False, True)]
        plans += [
            {"split": split, "long": split % 2 == 1, "place": place, "location": "../../../secret"}
            for place in dict.fromkeys(hostile.PLACES)
            for split in range(6)
        ]
        plans += [
            {"domain": domain, "where": where, "split": index, "long": index % 2 == 1}
            for domain in (*FOREIGN, "com.microsoft", "ai.onnx")
            for index, where in enumerate(WHERE)
        ]
        return [json.dumps(plan).encode() for plan in plans]

    def mutant(self, dice: random.Random) -> bytes:
        plan = json.loads(super().mutant(dice)) | {"split": dice.randrange(1 << 30), "long": dice.random() < 0.5}
        plan.pop("thing", None)
        if dice.random() < 0.4:
            plan |= {"domain": dice.choice(FOREIGN), "where": dice.choice(WHERE)}
        return json.dumps(plan).encode()

    def write(self, plan: Plan, secret: Path) -> Path:
        version = graphs.write_graph(secret.parent / "models", "tested", graphs.affine())
        (version / "sub").mkdir()
        for path in (version / "own", version / "sub" / "own"):
            path.write_bytes(OWN)
        (version / "model.onnx").write_bytes(content(plan, secret))
        return version

    def check(self, version: Path) -> None:
        """What was loaded, read whole."""
        model = onnx.ModelProto.FromString((version / "model.onnx").read_bytes())
        foreign = {domain for domain in _domains(model) if domain not in graph_files.DOMAINS}
        must(not foreign, f"operators of {foreign} are served")


def content(plan: Plan, secret: Path) -> bytes:
    """The file that a plan says."""
    model = hostile.build(plan, secret)
    if "domain" in plan:
        _use(model, plan["domain"], plan["where"])
    if plan["long"]:
        for part in model.graph.node:
            part.doc_string = "x" * LONG_BYTES
    whole = model.SerializeToString()
    kind = cast(Descriptor, onnx.ModelProto.DESCRIPTOR)
    return write(_spread(random.Random(plan["split"]), whole, kind)) if plan["split"] else whole


def _use(model: onnx.ModelProto, domain: str, where: str) -> None:
    """An operator of this domain, which is defined nowhere, or only for show."""
    node = helper.make_node("Evil", ["x"], ["e"], domain=domain)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    if where == "node":
        model.graph.node.insert(0, node)
    elif where == "branch":
        branches: dict[str, Any] = {f"{name}_branch": _graph(node) for name in ("then", "else")}
        truth = helper.make_tensor("c", onnx.TensorProto.BOOL, [], [True])
        model.graph.node.insert(0, helper.make_node("If", ["c"], ["e"], **branches))
        model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=truth))
    else:
        opset = [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]
        model.functions.append(helper.make_function("own", "Good", ["x"], ["e"], [node], opset))
        model.opset_import.append(helper.make_opsetid("own", 1))
        if where == "called":
            model.graph.node.insert(0, helper.make_node("Good", ["x"], ["e"], domain="own"))


def _graph(node: onnx.NodeProto) -> onnx.GraphProto:
    out = helper.make_tensor_value_info("e", onnx.TensorProto.FLOAT, ["batch", 4])
    return helper.make_graph([node], "branch", [], [out])


def _spread(dice: random.Random, data: bytes, kind: Descriptor) -> list[Field]:
    """The same message of a kind, where a message that stands once is written in two pieces, which merge, and between
    all of them stands what nobody knows."""
    fields = read(data, depth=0)
    assert fields is not None
    spread: list[Field] = []
    for one in fields:
        known = kind.fields_by_number.get(one.number)
        if known is None or known.message_type is None or not isinstance(one.value, bytes):
            spread.append(one)
            continue
        inner = _spread(dice, one.value, known.message_type)
        at = 0 if known.is_repeated or dice.random() < 0.3 else dice.randrange(len(inner) + 1)
        pieces = (inner[:at], inner[at:]) if at else (inner,)
        spread += [Field(one.number, BYTES, piece) for piece in pieces]
    if dice.random() < 0.2:
        spread.insert(dice.randrange(len(spread) + 1), Field(dice.choice((99, 2_000, 2**28)), VARINT, 1))
    return spread


def _domains(model: onnx.ModelProto) -> Iterator[str]:
    """Of the operators that are no functions of the file's own."""
    own = {(function.domain, function.name) for function in model.functions}
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        if (node.domain, node.op_type) not in own:
            yield node.domain
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting.extend(graph.node)
