"""Which engine serves a model, and how it is had."""

from pathlib import Path

import pytest

from millrace.engine import CONTRACT
from services.worker import repository
from services.worker.generation import GenerationEngine
from services.worker.repository.model import Model
from services.worker.stub import StubEngine
from tests.models import write_model
from tests.stub_models import write_stub


def only(folder: Path) -> Model:
    (model,), broken = repository.scan(folder)
    assert not broken
    return model


def test_an_engine_is_found_by_its_entry_point(tmp_path: Path) -> None:
    write_stub(tmp_path, slots=7)
    engine = repository.load(only(tmp_path), "cpu", threads=1)
    assert isinstance(engine, StubEngine)
    assert engine.capacity().jobs == 7


def test_the_generation_engine_is_loaded_warm(tmp_path: Path) -> None:
    write_model(tmp_path)
    engine = repository.load(only(tmp_path), "auto", threads=1)
    assert isinstance(engine, GenerationEngine)
    assert engine.step() is None


def test_an_unknown_engine_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    file = write_stub(tmp_path) / "model.yaml"
    file.write_text(file.read_text().replace("engine: stub", "engine: nonesuch"))
    with pytest.raises(ValueError, match=r"'nonesuch': installed are .*generation.*stub"):
        repository.load(only(tmp_path), "cpu", threads=1)


def test_a_model_without_a_graph_for_the_device_says_which_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert repository.resolve_device("auto") == "cuda"
    with pytest.raises(ValueError, match="no graph for cuda: it has cpu"):
        repository.load(only(tmp_path), "cuda", threads=1)


def test_a_context_longer_than_the_graphs_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, context_length=4096)
    with pytest.raises(ValueError, match="4096 is more than the graph's 128"):
        repository.load(only(tmp_path), "cpu", threads=1)


def test_auto_takes_the_cpu_where_there_is_no_gpu_and_cuda_names_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert repository.resolve_device("auto") == repository.resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match=r"millrace\[gpu\]"):
        repository.resolve_device("cuda")
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        repository.resolve_device("tpu")


def test_an_engine_for_a_later_contract_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stub(tmp_path)
    monkeypatch.setattr(StubEngine, "contract", CONTRACT + 1, raising=False)
    with pytest.raises(ValueError, match="was written for contract"):
        repository.load(only(tmp_path), "cpu", threads=1)
