"""What a model is expected to hold, and what a worker's models may hold together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from services.worker import repository
from services.worker.generation import GenerationEngine
from services.worker.repository.budget import Budget, told
from services.worker.repository.memory import needed_bytes
from services.worker.repository.model import Model
from tests import graphs
from tests.models import Llama, write_model
from tests.stub_models import write_stub

SHAPE = Llama(hidden=128, intermediate=256, vocabulary_size=1024)
ENTRY_BYTES = 2 * SHAPE.layers * SHAPE.kv_heads * SHAPE.head_size * 4
LOGITS_BYTES = (SHAPE.slots + SHAPE.prefill_chunk_tokens) * SHAPE.vocabulary_size * 4


def only(folder: Path) -> Model:
    (model,), broken = repository.scan(folder)
    assert not broken
    return model


def needed(folder: Path, device: str = "cpu", shape: Llama = SHAPE, **keys: Any) -> int:
    write_model(folder, shape=shape, **{"prefix_cache_bytes": 0} | keys)
    return needed_bytes(only(folder), device)


def stored(folder: Path) -> int:
    return sum((folder / "tiny" / "1" / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))


def test_a_decoder_needs_its_weights_a_context_for_each_slot_and_one_more_and_its_logits(tmp_path: Path) -> None:
    caches = (SHAPE.slots + 1) * SHAPE.context_length * ENTRY_BYTES
    assert needed(tmp_path) == stored(tmp_path) + caches + LOGITS_BYTES


def test_the_estimate_is_what_the_engine_allocates(tmp_path: Path) -> None:
    estimate = needed(tmp_path) - stored(tmp_path)
    engine = repository.load(only(tmp_path), "cpu", threads=1)
    assert isinstance(engine, GenerationEngine)
    assert engine.memory_bytes == estimate


def test_what_is_kept_of_prompts_that_begin_alike_counts(tmp_path: Path) -> None:
    alone = needed(tmp_path / "a")
    assert needed(tmp_path / "b", prefix_cache_bytes=1 << 20) == alone + (1 << 20)


def test_a_shorter_context_and_fewer_slots_need_less(tmp_path: Path) -> None:
    whole = needed(tmp_path / "a")
    assert whole - needed(tmp_path / "b", context_length=64) == (SHAPE.slots + 1) * 64 * ENTRY_BYTES
    fewer = SHAPE.context_length * ENTRY_BYTES + SHAPE.vocabulary_size * 4
    assert whole - needed(tmp_path / "c", slots=SHAPE.slots - 1) == fewer


@pytest.mark.parametrize(("weights", "per_value"), [("int8", 1.0), ("int4", 0.625)])
def test_matrices_in_fewer_bits_need_less_and_the_table_of_embeddings_does_not(
    tmp_path: Path, weights: str, per_value: float
) -> None:
    saved = needed(tmp_path / "a") - needed(tmp_path / "b", weights=weights)
    queries = SHAPE.hidden * SHAPE.heads * SHAPE.head_size
    attention = 2 * queries + 2 * SHAPE.hidden * SHAPE.kv_heads * SHAPE.head_size
    values = SHAPE.layers * (attention + 3 * SHAPE.hidden * SHAPE.intermediate)
    head = SHAPE.vocabulary_size * SHAPE.hidden
    assert saved == pytest.approx((values + head) * (4 - per_value), rel=0.02)


def test_a_gpu_holds_what_model_yaml_allows_it(tmp_path: Path) -> None:
    shape = Llama(dialect="paged", device="cuda")
    entry = 2 * shape.layers * shape.kv_heads * shape.head_size * 2
    logits = (shape.slots + shape.prefill_chunk_tokens) * shape.vocabulary_size * 4
    whole = needed(tmp_path / "a", "cuda", shape)
    assert whole == stored(tmp_path / "a") + shape.slots * shape.context_length * entry + logits
    said = needed(tmp_path / "b", "cuda", shape, arena_bytes=1 << 30, kv_cache_bytes=1 << 20)
    assert said == (1 << 30) + (1 << 20) + logits


def test_a_graph_of_tensors_needs_its_file_once_on_a_cpu_and_for_each_session_on_a_gpu(tmp_path: Path) -> None:
    graph = graphs.model(
        [("Add", ["x", "w"], ["y"], {})],
        {"x": (TensorProto.FLOAT, ["batch", 4096])},
        {"y": (TensorProto.FLOAT, ["batch", 4096])},
        {"w": np.ones(4096, np.float32)},
    )
    version = graphs.write_graph(tmp_path, "tested", graph, sessions=3)
    size = (version / "model.onnx").stat().st_size
    assert size > 4096 * 4
    assert needed_bytes(only(tmp_path), "cpu") == size
    assert needed_bytes(only(tmp_path), "cuda") == 3 * size


def test_what_another_engine_serves_needs_its_files(tmp_path: Path) -> None:
    version = write_stub(tmp_path)
    (version / "weights").write_bytes(b"x" * 5_000)
    assert needed_bytes(only(tmp_path), "cpu") == 5_000 + (version / "model.yaml").stat().st_size


def test_model_yaml_knows_better(tmp_path: Path) -> None:
    assert needed(tmp_path, memory_bytes=7) == 7


def test_a_device_without_a_graph_needs_nothing(tmp_path: Path) -> None:
    assert needed(tmp_path, "cuda") == 0


def test_what_does_not_fit_is_refused_with_what_is_held_and_holds_nothing() -> None:
    budget = Budget(512_000_000)
    budget.reserve("digits/1", 5_000_000)
    budget.reserve("large/2", 467_000_000)
    with pytest.raises(ValueError, match="unload") as caught:
        budget.reserve("pycode/1", 180_000_000)
    assert str(caught.value) == (
        "pycode/1 needs about 180 MB, and 40 MB of the 512 MB in MILLRACE_MEMORY_BYTES are left "
        "(large/2 has 467 MB, digits/1 has 5 MB): unload something or raise it"
    )
    budget.reserve("small/1", 40_000_000)
    budget.release("large/2")
    budget.reserve("pycode/1", 180_000_000)
    assert budget.held_bytes == 225_000_000


def test_a_budget_of_nothing_has_no_limit() -> None:
    budget = Budget(0)
    budget.reserve("huge/1", 1 << 60)
    budget.reserve("huge/2", 1 << 60)
    assert budget.held_bytes == 1 << 61


def test_an_empty_budget_names_nobody_and_a_long_list_ends() -> None:
    budget = Budget(1_000)
    with pytest.raises(ValueError, match="1 KB of the 1 KB in MILLRACE_MEMORY_BYTES are left: unload"):
        budget.reserve("a/1", 1_001)
    for number in range(9):
        budget.reserve(f"m/{number}", 100)
    with pytest.raises(ValueError, match=r"\(m/8 has 100 bytes, m/7 .*, m/4 has 100 bytes, …\)"):
        budget.reserve("a/1", 1_000)


def test_a_version_and_what_replaces_it_are_held_together_until_one_goes() -> None:
    budget = Budget(100)
    budget.reserve("a/1", 40)
    budget.reserve("a/1", 50)
    assert budget.held_bytes == 90
    budget.release("a/1")
    assert budget.held_bytes == 50
    budget.reserve("a/1", 10)
    budget.release("a/1", newest=True)
    assert budget.held_bytes == 50


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_500, "1.5 KB"),
        (5_000_000, "5 MB"),
        (12_345_678, "12 MB"),
        (8_123_000_000, "8.1 GB"),
        (80_000_000_000, "80 GB"),
    ],
)
def test_bytes_are_told_as_people_say_them(size: int, expected: str) -> None:
    assert told(size) == expected
