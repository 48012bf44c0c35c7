from pathlib import Path
from typing import Any

import pytest
import yaml

from millrace.engine import CONTRACT
from services.worker import repository
from services.worker.generation import GenerationEngine
from services.worker.repository import Model
from services.worker.stub import StubEngine
from tests.models import write_model

STUB = {"name": "stub", "task": "text-generation", "engine": "stub"}


def write_stub(folder: Path, version: str = "1", folder_name: str = "stub", **keys: Any) -> Path:
    path = folder / folder_name / version
    path.mkdir(parents=True)
    (path / "model.yaml").write_text(yaml.safe_dump(STUB | keys))
    return path


def only(folder: Path) -> Model:
    models, broken = repository.scan(folder)
    assert not broken
    (model,) = models
    return model


def reason(folder: Path) -> str:
    models, broken = repository.scan(folder)
    assert not models
    (one,) = broken
    return one.reason


def change(path: Path, **keys: Any) -> None:
    file = path / "model.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | keys))


def test_versions_come_in_the_order_of_their_numbers_behind_the_models_name(tmp_path: Path) -> None:
    for version in ("10", "9", "rc1", "1"):
        write_stub(tmp_path, version)
    write_stub(tmp_path, folder_name="other")
    models, broken = repository.scan(tmp_path)
    assert [(model.name, model.version) for model in models] == [("stub", v) for v in ("1", "9", "10", "rc1")]
    assert [one.path.parent.name for one in broken] == ["other"]


def test_a_valid_model_has_the_defaults_of_what_it_leaves_out(tmp_path: Path) -> None:
    write_stub(tmp_path)
    file = only(tmp_path).file
    assert (file.slots, file.prefill_chunk_tokens, file.engine_options, file.graphs) == (32, 128, {}, {})


def test_files_beside_the_models_and_hidden_folders_are_no_models(tmp_path: Path) -> None:
    write_stub(tmp_path)
    (tmp_path / "README.md").write_text("")
    (tmp_path / ".git" / "1").mkdir(parents=True)
    assert only(tmp_path).name == "stub"


def test_the_digest_changes_with_any_file_and_with_nothing_else(tmp_path: Path) -> None:
    path = write_stub(tmp_path / "a")
    write_stub(tmp_path / "b")
    first = only(tmp_path / "a").digest
    assert first == only(tmp_path / "b").digest
    (path / "weights").write_bytes(b"1")
    second = only(tmp_path / "a").digest
    (path / "weights").rename(path / "other")
    assert len({first, second, only(tmp_path / "a").digest}) == 3
    assert len(first) == 64


BROKEN = [
    ({"name": "other"}, "'other' lies in a folder called 'tiny'"),
    ({"slot": 3}, "slot: Extra inputs are not permitted"),
    ({"slots": 0}, "slots: Input should be greater than or equal to 1"),
    ({"graphs": {}}, "the generation engine needs at least one"),
    ({"graphs": {"tpu": {"path": "."}}}, "graphs.tpu"),
    ({"graphs": {"cpu": {"path": "../../elsewhere"}}}, "must lie inside the model's folder"),
    ({"graphs": {"cpu": {"path": "/etc"}}}, "must lie inside the model's folder"),
    ({"graphs": {"cpu": {"path": "fp32"}}}, "graphs.cpu: genai_config.json is missing in fp32"),
    ({"prefill_chunk_tokens": 64, "step_tokens": 32}, "step_tokens: must hold at least one chunk"),
    ({"defaults": {"top_p": 0}}, "defaults.top_p"),
]


@pytest.mark.parametrize(("keys", "expected"), BROKEN)
def test_a_model_file_that_is_wrong_is_reported_with_the_reason(
    tmp_path: Path, keys: dict[str, Any], expected: str
) -> None:
    change(write_model(tmp_path), **keys)
    assert expected in reason(tmp_path)


@pytest.mark.parametrize("name", ["model.yaml", "genai_config.json", "tokenizer.json", "model.onnx"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_model(tmp_path) / name).unlink()
    assert f"{name} is missing" in reason(tmp_path)


@pytest.mark.parametrize("text", ["name: [", "", "- 1", "\x00"])
def test_a_model_file_that_is_no_mapping_is_reported(tmp_path: Path, text: str) -> None:
    (write_stub(tmp_path) / "model.yaml").write_text(text)
    assert "model.yaml" in reason(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[", '{"model": {"decoder": {"filename": "../model.onnx"}}}'])
def test_a_generation_config_that_names_no_graph_of_its_own_is_reported(tmp_path: Path, text: str) -> None:
    (write_model(tmp_path) / "genai_config.json").write_text(text)
    said = reason(tmp_path)
    assert any(words in said for words in ("json does not name", "json is not JSON", "must lie inside"))


def test_a_symbolic_link_is_refused_wherever_it_points(tmp_path: Path) -> None:
    path = write_model(tmp_path / "models")
    (path / "model.onnx.data").rename(tmp_path / "weights")
    (path / "model.onnx.data").symlink_to(tmp_path / "weights")
    assert "model.onnx.data is a symbolic link" in reason(tmp_path / "models")


def test_a_version_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    path = write_stub(tmp_path / "elsewhere")
    (tmp_path / "models" / "stub").mkdir(parents=True)
    (tmp_path / "models" / "stub" / "1").symlink_to(path)
    assert "1 is a symbolic link" in reason(tmp_path / "models")


def test_a_repository_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        repository.scan(tmp_path / "nowhere")


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
    write_stub(tmp_path, engine="nonesuch")
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
