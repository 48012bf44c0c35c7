"""Which graphs the paged decoder takes, and what it makes of them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from services.worker.generation.paged import graph
from tests.models import Llama
from tests.models.llama import build
from tests.worker.generation.paged.oracle import PAGED, paged_config

Graph = onnx.GraphProto


def node(proto: Graph, operator: str) -> onnx.NodeProto:
    return next(node for node in proto.node if node.op_type == operator)


def unpruned(proto: Graph) -> None:
    """As the builder writes it without `prune_lm_head`."""
    for gather in [node for node in proto.node if graph.SELECTED in node.input]:
        proto.node.insert(list(proto.node).index(gather), helper.make_node("Identity", gather.input[:1], gather.output))
        proto.node.remove(gather)
    proto.input.remove(next(port for port in proto.input if port.name == graph.SELECTED))
    next(port for port in proto.output if port.name == "logits").type.tensor_type.shape.dim[0].dim_param = "num_tokens"


def windowed(proto: Graph) -> None:
    proto.input.append(helper.make_tensor_value_info("block_table_windowed", TensorProto.INT32, ["b", "w"]))
    node(proto, "PagedAttention").input[7] = "block_table_windowed"


def without_metadata(proto: Graph) -> None:
    """As it was written for ONNX Runtime before 1.29."""
    for each in proto.node:
        if each.op_type == "PagedAttention":
            del each.input[10:]
    proto.input.remove(next(port for port in proto.input if port.name == graph.METADATA))


def with_position_ids(proto: Graph) -> None:
    proto.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["num_tokens"]))
    proto.node.insert(0, helper.make_node("Identity", ["position_ids"], ["positions"]))


def with_rotary_caches_by_length(proto: Graph) -> None:
    """As the builder chooses between short and long ones, by how wide the table is."""
    proto.node.insert(0, helper.make_node("Shape", [graph.TABLE], ["width"]))


def with_slot_mapping(proto: Graph) -> None:
    node(proto, "PagedAttention").input[10] = "slot_mapping"


def without_head(proto: Graph) -> None:
    unpruned(proto)
    proto.node[-1].op_type = "Gemm"


def of_another_dialect(proto: Graph) -> None:
    for each in proto.node:
        each.op_type = each.op_type.replace("PagedAttention", "GroupQueryAttention")


def without_values(proto: Graph) -> None:
    proto.output.remove(next(port for port in proto.output if port.name == "present.1.value"))


@pytest.mark.parametrize("changed", [None, unpruned, windowed, without_metadata])
def test_every_attention_node_reads_the_one_block_table(changed: Callable[[Graph], None] | None) -> None:
    proto = build(PAGED).graph
    if changed is not None:
        changed(proto)
    graph.rewrite(proto, paged_config().decoder)
    attention = [node for node in proto.node if node.op_type == "PagedAttention"]
    assert len(attention) == PAGED.layers
    for each in attention:
        assert {index: each.input[index] for index in graph.NODE_INPUTS} == graph.NODE_INPUTS
    inputs = [port.name for port in proto.input]
    assert sorted(inputs) == sorted({"input_ids", *graph.PORTS, *(past for past, _ in paged_config().decoder.caches())})


def test_a_graph_as_the_builder_writes_it_keeps_its_attention_as_it_is() -> None:
    proto, before = build(PAGED).graph, build(PAGED).graph
    graph.rewrite(proto, paged_config().decoder)
    assert [node for node in proto.node if "Attention" in node.op_type] == [
        node for node in before.node if "Attention" in node.op_type
    ]


def test_a_graph_that_gives_the_logits_of_all_tokens_is_made_to_give_those_asked_for() -> None:
    proto = build(PAGED).graph
    unpruned(proto)
    graph.rewrite(proto, paged_config().decoder)
    gather, head = proto.node[-2:]
    assert (gather.op_type, gather.input[1], head.op_type) == ("Gather", graph.SELECTED, "MatMul")
    assert head.input[0] == gather.output[0]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (with_position_ids, "no values for: position_ids"),
        (with_rotary_caches_by_length, "no values for: block_table"),
        (with_slot_mapping, "has a slot mapping"),
        (without_head, "no head that is known"),
        (of_another_dialect, "0 PagedAttention nodes for 2 layers"),
    ],
)
def test_a_graph_that_cannot_be_served_is_refused_with_a_reason(changed: Callable[[Graph], None], reason: str) -> None:
    proto = build(PAGED).graph
    changed(proto)
    with pytest.raises(ValueError, match=reason):
        graph.rewrite(proto, paged_config().decoder)


def test_a_graph_that_lacks_a_port_is_refused_by_its_name(tmp_path: Path) -> None:
    model = build(PAGED)
    without_values(model.graph)
    onnx.save(model, tmp_path / "model.onnx")
    settings = dataclasses.replace(paged_config().decoder, graph=tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"the graph has no present\.1\.value"):
        graph.load(settings)


def test_what_a_position_holds_is_read_from_the_graph() -> None:
    loaded = graph.load(paged_config(Llama(dialect="paged", precision="fp32", kv_precision="int8")).decoder)
    assert loaded.entry_shape == (2, 16)
    assert loaded.cache_type == TensorProto.INT8
    assert loaded.logits_type == TensorProto.FLOAT
    assert len(loaded.model) < 20_000
