"""Graphs are checked before ONNX Runtime sees them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from services.worker import repository
from services.worker.repository import graph_files, outline
from tests import graphs
from tests.models import write_model

DATA_BYTES = 64
Node = onnx.NodeProto


def external(location: str = "data", **more: Any) -> TensorProto:
    """Four numbers that lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": location} | more).items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def held(tensor: TensorProto, place: str = "initializer") -> onnx.ModelProto:
    """y = x + w, whose weights lie at some place of the graph."""
    add = helper.make_node("Add", ["x", "w"], ["y"])
    if place == "initializer":
        return model([add], initializer=[tensor])
    if place == "constant":
        return model([helper.make_node("Constant", [], ["w"], value=tensor), add])
    if place == "sparse":
        indices = helper.make_tensor("i", TensorProto.INT64, [4], range(4))
        return model([add], sparse_initializer=[onnx.SparseTensorProto(values=tensor, indices=indices, dims=[4])])
    if place == "branch":
        return model(branches([helper.make_node("Add", ["x", "w"], ["o"])], [tensor]))
    body = [helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("Add", ["a", "w"], ["b"])]
    return calling(body)


def model(nodes: Sequence[Node], functions: Sequence[onnx.FunctionProto] = (), **fields: Any) -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "test", ports[:1], ports[1:], **fields)
    domains = [helper.make_opsetid(domain, version) for domain, version in (("", 18), ("own", 1))]
    return helper.make_model(graph, opset_imports=domains, ir_version=10, functions=functions)


def branches(nodes: Sequence[Node], tensors: Sequence[TensorProto] = ()) -> list[Node]:
    """The nodes make o of x, within a graph within the graph."""
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, ["batch", 4])
    body = helper.make_graph(nodes, "then", [], [out], tensors)
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "else", [], [out])
    truth = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    return [truth, helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=other)]


def calling(nodes: Sequence[Node]) -> onnx.ModelProto:
    """The nodes make b of a, within a function of the model's own."""
    function = helper.make_function("own", "Twice", ["a"], ["b"], nodes, [helper.make_opsetid("", 18)])
    return model([helper.make_node("Twice", ["x"], ["y"], domain="own")], [function])


def strange(operator: str = "Read", domain: str = "evil") -> Node:
    return helper.make_node(operator, ["x"], ["y"], "here", domain=domain)


def write(folder: Path, graph: onnx.ModelProto) -> Path:
    version = graphs.write_graph(folder / "models", "tested", graph)
    (version / "data").write_bytes(b"\0" * DATA_BYTES)
    (version / "sub").mkdir()
    (version / "sub" / "data").write_bytes(b"\0" * DATA_BYTES)
    (folder / "secret").write_bytes(b"\0" * DATA_BYTES)
    return version


def reason(folder: Path, graph: onnx.ModelProto, domains: Sequence[str] = ()) -> str:
    """Empty where the model is in order."""
    write(folder, graph)
    _, broken = repository.scan(folder / "models", domains=domains)
    return broken[0].reason if broken else ""


NEEDED = ("genai_config.json", "tokenizer.json")
PLACES = ["initializer", "constant", "sparse", "branch", "function"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["data", "./data", "sub/data", "sub//data"])
def test_weights_may_lie_in_any_file_of_the_version(tmp_path: Path, place: str, location: str) -> None:
    assert reason(tmp_path, held(external(location, offset=16, length=16), place)) == ""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("../../../secret", "lie in '../../../secret': they must lie inside the model's folder"),
        ("sub/../data", "must lie inside"),
        ("/etc/passwd", "must lie inside"),
        ("/proc/self/mem", "must lie inside"),
        ("*/_ORT_MEM_ADDR_/*", "which is no file of the model's folder"),
        ("data\0/../../../secret", "must lie inside"),
        ("data\0", "which is no file"),
        ("missing", "which is no file"),
        ("sub", "which is no file"),
        ("", "which is no file"),
        (".", "which is no file"),
    ],
)
def test_weights_that_lie_elsewhere_are_refused_wherever_the_graph_has_them(
    tmp_path: Path, place: str, location: str, expected: str
) -> None:
    said = reason(tmp_path, held(external(location), place))
    assert said.startswith("model.onnx: the weights 'w' ")
    assert expected in said


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"offset": 64, "length": 1}, "end at byte 65 of data, which has 64"),
        ({"length": 65}, "end at byte 65"),
        ({"offset": 65}, "end at byte 65"),
        ({"offset": -4}, "offset is '-4', which is no number of bytes"),
        ({"length": "0x10"}, "length is '0x10', which is no number of bytes"),
        ({"length": "٣"}, "which is no number of bytes"),
        ({"offset": "9" * 5_000}, "which is no number of bytes"),
        ({"offset": 2**63}, "end at byte 9223372036854775808"),
    ],
)
def test_weights_that_end_beyond_their_file_are_refused(tmp_path: Path, more: dict[str, Any], expected: str) -> None:
    assert expected in reason(tmp_path, held(external(**more)))


def test_weights_that_name_two_files_or_none_are_refused(tmp_path: Path) -> None:
    two, none, unmarked = external(), external(), external("../../../secret")
    two.external_data.add(key="location", value="../../../secret")
    del none.external_data[:]
    unmarked.ClearField("data_location")
    for index, (tensor, expected) in enumerate(
        [(two, "do not name one file"), (none, "do not name one file"), (unmarked, "must lie inside")]
    ):
        assert expected in reason(tmp_path / str(index), held(tensor))


def test_weights_behind_a_link_are_refused(tmp_path: Path) -> None:
    version = write(tmp_path, held(external("linked")))
    (version / "linked").symlink_to(tmp_path / "secret")
    assert "linked is a symbolic link" in repository.scan(tmp_path / "models")[1][0].reason


def test_locations_are_relative_to_a_graph_that_lies_in_a_folder_of_its_own(tmp_path: Path) -> None:
    version = write_model(tmp_path)
    for name in ("model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json"):
        (version / "cpu").mkdir(exist_ok=True)
        (version / name).rename(version / "cpu" / name)
    file = version / "model.yaml"
    file.write_text(file.read_text().replace("path: .", "path: cpu"))
    (model,), broken = repository.scan(tmp_path)
    assert not broken
    assert graph_files.paths(version, model.file, ["cpu/model.onnx", *(f"cpu/{name}" for name in NEEDED)]) == {
        "cpu": "cpu/model.onnx"
    }
    (version / "cpu" / "model.onnx.data").rename(version / "model.onnx.data")
    assert "lie in 'model.onnx.data', which is no file" in repository.scan(tmp_path)[1][0].reason


@pytest.mark.parametrize(
    "graph",
    [
        model([strange()]),
        model(branches([strange()])),
        calling([strange()]),
        calling(branches([strange()])),
    ],
    ids=["graph", "branch", "function", "branch in a function"],
)
def test_an_operator_of_a_domain_that_is_not_served_is_named_wherever_it_is(
    tmp_path: Path, graph: onnx.ModelProto
) -> None:
    said = reason(tmp_path, graph)
    assert said.startswith("model.onnx: the node 'here' is of the operator Read of the domain evil; served are ONNX's")
    assert "com.microsoft" in said
    assert said.endswith("what MILLRACE_OPERATOR_DOMAINS adds")


def test_a_domain_can_be_added(tmp_path: Path) -> None:
    assert reason(tmp_path, model([strange()]), domains=["evil"]) == ""


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"])
def test_what_comes_with_the_runtime_is_served(tmp_path: Path, domain: str) -> None:
    assert reason(tmp_path, model([strange("Gelu", domain)])) == ""


def test_a_function_of_the_models_own_is_no_stranger_but_what_only_shares_its_domain_is(tmp_path: Path) -> None:
    assert reason(tmp_path / "a", calling([helper.make_node("Add", ["a", "a"], ["b"])])) == ""
    graph = calling([helper.make_node("Add", ["a", "a"], ["b"])])
    graph.graph.node.append(strange("Thrice", "own"))
    assert "operator Thrice of the domain own" in reason(tmp_path / "b", graph)


def test_each_graph_is_checked_and_what_is_no_graph_of_the_model_is_not(tmp_path: Path) -> None:
    version = write(tmp_path, model([strange("Gelu", "")]))
    (version / "other.onnx").write_bytes(model([strange()]).SerializeToString())
    named = "name: tested\ntask: tensor\nengine: batch\ngraphs: {cpu: {path: model.onnx}"
    (version / "model.yaml").write_text(named + "}")
    assert not repository.scan(tmp_path / "models")[1]
    (version / "model.yaml").write_text(named + ", cuda: {path: ./other.onnx}}")
    assert "other.onnx: the node 'here'" in repository.scan(tmp_path / "models")[1][0].reason


@pytest.mark.parametrize(
    "content", [b"no graph", b"\x0a\x05abc", b"\x0b\x0c", b"\xff" * 11, b"\x3a\xff\xff\xff\xff\x0f", b"\x08"]
)
def test_what_is_no_graph_is_told(tmp_path: Path, content: bytes) -> None:
    version = write(tmp_path, model([]))
    (version / "model.onnx").write_bytes(content)
    assert repository.scan(tmp_path / "models")[1][0].reason == "model.onnx is not an ONNX graph"


def test_a_file_longer_than_any_graph_is_not_read(tmp_path: Path) -> None:
    version = write(tmp_path, model([]))
    os.truncate(version / "model.onnx", 1 << 31)
    with pytest.raises(ValueError, match="has 2147483648 bytes: an ONNX graph has less than 2 GB"):
        graph_files.check(version, "model.onnx", {})


def big() -> onnx.ModelProto:
    """Weights everywhere, and of every kind of field."""
    values = np.arange(4096, dtype=np.float32)
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [4096], values)
    texts = TensorProto(name="texts", data_type=TensorProto.STRING, dims=[2], string_data=[b"x" * 5_000, b"y"])
    graph = model(
        [
            *branches([helper.make_node("Add", ["x", "w"], ["o"])], [numpy_helper.from_array(values, "w")]),
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(values)),
            helper.make_node("Long", [], ["l"], numbers=list(range(5_000)), text="z" * 5_000),
        ],
        initializer=[typed, texts, numpy_helper.from_array(values, "raw")],
    )
    graph.metadata_props.add(key="k", value="v" * 5_000)
    return graph


def test_an_outline_is_the_graph_without_the_elements_of_long_tensors(tmp_path: Path) -> None:
    expected = big()
    (tmp_path / "g").write_bytes(expected.SerializeToString())
    for part in graph_files.parts(expected):
        if isinstance(part, TensorProto) and part.ByteSize() > outline.SHORT_BYTES:
            for field in outline.ELEMENTS:
                part.ClearField(field)
    assert outline.read(tmp_path / "g") == expected


def test_an_outline_takes_neither_the_time_nor_the_memory_of_the_weights(tmp_path: Path) -> None:
    """The file has a hole of 1 GB in place of its weights."""
    content, size = model([strange("Gelu", "")]).SerializeToString(), 1 << 30
    elements = field(9, size)
    initializer = field(5, len(elements) + size) + elements
    with (tmp_path / "g").open("wb") as file:
        file.write(content + field(7, len(initializer) + size) + initializer)
        file.seek(size, os.SEEK_CUR)
        file.truncate()
    read = outline.read(tmp_path / "g")
    assert len(read.graph.initializer) == 1
    assert read.ByteSize() < len(content) + 100


def field(number: int, length: int) -> bytes:
    """The beginning of a field of so many bytes."""
    return outline._encoded(number << 3 | outline.LENGTH) + outline._encoded(length)


def test_a_graph_that_is_too_deep_too_large_or_too_fine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g"
    path.write_bytes(big().SerializeToString())
    for bound, value in (("MOST_FIELDS", 10), ("OUTLINE_BYTES", 1_000), ("MOST_DEPTH", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(outline, bound, value)
            with pytest.raises(ValueError, match="g: the graph is too large, even without its weights"):
                outline.read(path)
    deep = b"x" * outline.SHORT_BYTES
    for _ in range(200):
        deep = field(6, len(deep)) + deep
        deep = field(5, len(deep)) + deep
        deep = field(1, len(deep)) + deep
    path.write_bytes(field(7, len(deep)) + deep)
    with pytest.raises(ValueError, match="g: the graph is too large"):
        outline.read(path)
