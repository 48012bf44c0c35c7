"""The rewritten graph with its cache in place, against the graph as it was written."""

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from millrace.engine import EngineContext
from services.worker.generation import config
from services.worker.generation.config import DecoderConfig, ModelConfig
from services.worker.generation.decoder import Chunk
from services.worker.generation.slot import graph, mixed
from services.worker.generation.slot.decoder import SlotDecoder
from services.worker.generation.slot.kv import DeviceCopy
from services.worker.session import allocate
from tests.models import TinyLlama
from tests.worker.generation.jobs import tiny_model

PROMPT = np.random.default_rng(4).integers(1, 300, 45)
Floats = npt.NDArray[np.float32]


def model_config(shape: TinyLlama | None = None) -> ModelConfig:
    model = tiny_model(shape or TinyLlama())
    return config.read(EngineContext(folder=model.folder, config=model.file.model_dump(), device="cpu", threads=1))


def decoder(shape: TinyLlama | None = None) -> SlotDecoder:
    return SlotDecoder(model_config(shape), device="cpu", threads=1)


def reference(prompt: npt.NDArray[np.int64], steps: int) -> list[Floats]:
    """Logits of the prompt's last position and of `steps` greedy tokens after it, with a cache that is copied."""
    settings = model_config().decoder
    session = ort.InferenceSession(settings.graph, providers=["CPUExecutionProvider"])
    past = {name: np.zeros((1, 2, 0, 16), np.float32) for name, _ in settings.caches()}
    token_ids, length, logits = prompt[np.newaxis], len(prompt), []
    for _ in range(steps + 1):
        feeds = past | {"input_ids": token_ids, "attention_mask": np.ones((1, length), np.int64)}
        first, *presents = session.run([settings.logits, *(present for _, present in settings.caches())], feeds)
        past = dict(zip(past, presents, strict=True))
        logits.append(first[0, -1])
        token_ids, length = first[:, -1:].argmax(-1), length + 1
    return logits


NOTHING = np.zeros((0, 1), np.int64), np.zeros(0, np.int32)


def prefill(model: SlotDecoder, row: int, prompt: npt.NDArray[np.int64], chunk: int) -> Floats:
    for start in range(0, len(prompt), chunk):
        end = min(start + chunk, len(prompt))
        model.run(*NOTHING, [Chunk(row, prompt[start:end], start, wanted=end == len(prompt))])
    return np.array(model.logits.owner[row, 0])


@pytest.mark.parametrize("chunk", [1, 7, 16, 45])
def test_a_prompt_in_chunks_and_tokens_in_place_give_the_original_graphs_logits(chunk: int) -> None:
    expected, model = reference(PROMPT, 12), decoder()
    logits = prefill(model, 0, PROMPT, chunk)
    for step in range(12):
        assert logits == pytest.approx(expected[step], abs=1e-4)
        token = logits.argmax()
        assert token == expected[step].argmax()
        model.run(np.array([[token]]), np.array([len(PROMPT) + step], np.int32), ())
        logits = model.logits.owner[0, 0]
    assert logits == pytest.approx(expected[12], abs=1e-4)


def test_rows_of_different_lengths_decode_bit_for_bit_as_they_do_alone() -> None:
    model, lengths, tokens = decoder(), [3, 45, 17, 30], np.array([[5], [6], [7], [8]])
    for slot, length in enumerate(lengths):
        prefill(model, slot, PROMPT[:length], 16)
    model.run(tokens, np.array(lengths, np.int32), ())
    together = model.logits.owner.copy()
    for slot, length in enumerate(lengths):
        alone = decoder()
        prefill(alone, 0, PROMPT[:length], 16)
        alone.run(tokens[slot : slot + 1], np.array([length], np.int32), ())
        assert (alone.logits.owner[0] == together[slot]).all()


def test_a_sequence_goes_on_in_another_slot_after_a_move() -> None:
    model = decoder()
    prefill(model, 3, PROMPT, 16)
    model.move(3, 0, len(PROMPT))
    model.run(np.array([[9]]), np.array([len(PROMPT)], np.int32), ())
    alone = decoder()
    prefill(alone, 0, PROMPT, 16)
    alone.run(np.array([[9]]), np.array([len(PROMPT)], np.int32), ())
    assert (model.logits.owner[0] == alone.logits.owner[0]).all()


def test_the_copy_that_stays_on_the_device_copies_one_row() -> None:
    buffer = allocate((3, 2, 4, 2), onnx.TensorProto.FLOAT, "cpu")
    buffer.owner[2] = np.arange(16).reshape(2, 4, 2)
    DeviceCopy(onnx.TensorProto.FLOAT, "cpu").copy(buffer, 2, 0)
    assert (buffer.owner[0] == buffer.owner[2]).all()
    assert not buffer.owner[1].any()


def test_the_rewritten_graph_has_lengths_for_the_mask_and_logits_where_they_are_wanted() -> None:
    settings = model_config().decoder
    rewritten = onnx.load_from_string(graph.load(settings).model)
    inputs = {port.name for port in rewritten.graph.input}
    caches = {past for past, _ in settings.caches()}
    caches |= {mixed.chunk_port(past) for past in caches}
    assert inputs == {"input_ids", mixed.SPLIT, *mixed.PORTS, graph.POSITIONS} | caches
    assert not [node for node in rewritten.graph.node if node.op_type in ("Shape", "ReduceSum")]
    kinds = [node.op_type for node in rewritten.graph.node]
    assert kinds[-2:] == ["Gather", "MatMul"]


def test_weights_stay_in_their_file() -> None:
    settings = model_config().decoder
    assert len(graph.load(settings).model) < 40_000 < settings.graph.with_name("model.onnx.data").stat().st_size


def test_a_graph_with_its_weights_inside_is_served_too() -> None:
    inside, outside = decoder(TinyLlama(external_data=False)), decoder()
    assert (prefill(inside, 0, PROMPT, 16) == prefill(outside, 0, PROMPT, 16)).all()


def test_where_no_head_is_recognised_positions_are_taken_behind_the_logits() -> None:
    settings, model = model_config().decoder, decoder()
    proto = onnx.load(settings.graph, load_external_data=False)
    proto.graph.node[-1].output[0] = "raw"
    proto.graph.node.append(onnx.helper.make_node("LogSoftmax", ["raw"], ["logits"], axis=-1))
    graph.rewrite(proto.graph, settings)
    assert [node.op_type for node in proto.graph.node][-2:] == ["LogSoftmax", "Gather"]
    assert prefill(model, 0, PROMPT, 45).shape == (320,)


@pytest.mark.parametrize("changed", ["no attention", "stranger"])
def test_a_graph_of_another_dialect_is_refused_with_a_reason(changed: str) -> None:
    settings: DecoderConfig = model_config().decoder
    proto = onnx.load(settings.graph, load_external_data=False)
    if changed == "no attention":
        for node in proto.graph.node:
            node.op_type = node.op_type.replace("GroupQueryAttention", "MultiHeadAttention")
    else:
        next(node for node in proto.graph.node if node.op_type == "Sigmoid").input[0] = "attention_mask"
    with pytest.raises(ValueError, match=r"0 GroupQueryAttention nodes|attention_mask"):
        graph.rewrite(proto.graph, settings)


def test_the_cache_and_the_logits_are_all_that_sequences_take_up() -> None:
    caches, logits = 4 * (4 + 1) * 2 * 128 * 16 * 4, (4 + 16) * 320 * 4
    assert decoder().memory_bytes == caches + logits


def test_one_run_gives_the_logits_of_every_position_that_a_shorter_one_would_have_given() -> None:
    model, chunk = decoder(), PROMPT[:16]
    model.run_all(Chunk(2, chunk, 0, wanted=False))
    every = model.chunk_logits.owner[:16, 0].copy()
    for length in range(1, 17):
        assert every[length - 1] == pytest.approx(prefill(model, 0, chunk[:length], 16), abs=1e-4)


def test_a_forked_row_goes_on_by_itself() -> None:
    model = decoder()
    prefill(model, 0, PROMPT, 16)
    model.fork(0, 3, len(PROMPT))
    model.run(*NOTHING, [Chunk(3, np.array([9]), len(PROMPT), wanted=True)])
    model.run(*NOTHING, [Chunk(0, np.array([9]), len(PROMPT), wanted=True)])
    assert (model.logits.owner[3] == model.logits.owner[0]).all()


def test_a_head_that_was_pruned_to_the_last_position_gives_any_other_again() -> None:
    settings = model_config().decoder
    proto = onnx.load(settings.graph, load_external_data=False)
    head = proto.graph.node[-1]
    last = onnx.numpy_helper.from_array(np.array(-1, np.int64), "minus_one")
    axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "axis_one")
    proto.graph.initializer.extend([last, axis])
    gather = onnx.helper.make_node("Gather", [head.input[0], "minus_one"], ["pruned"], axis=1)
    unsqueeze = onnx.helper.make_node("Unsqueeze", ["pruned", "axis_one"], ["pruned/column"])
    head.input[0] = "pruned/column"
    proto.graph.node.insert(len(proto.graph.node) - 1, gather)
    proto.graph.node.insert(len(proto.graph.node) - 1, unsqueeze)
    graph.rewrite(proto.graph, settings)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds[-2:] == ["Gather", "MatMul"]
    assert kinds[-3].endswith("LayerNormalization")
