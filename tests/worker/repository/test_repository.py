import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.worker import repository
from services.worker.repository import Model, scanning
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
    ({"graphs": {"cpu": {"path": "fp32"}}}, "graphs.cpu: fp32/genai_config.json is missing"),
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


def test_a_file_of_labels_that_is_missing_is_named(tmp_path: Path) -> None:
    path = write_stub(tmp_path, labels={"scores": "labels.txt"})
    assert reason(tmp_path) == "labels.scores: labels.txt is missing"
    (path / "labels.txt").write_text("a\nb\n")
    assert only(tmp_path).file.labels == {"scores": "labels.txt"}


def test_labels_lie_inside_the_models_folder(tmp_path: Path) -> None:
    write_stub(tmp_path, labels={"scores": "../../labels.txt"})
    assert "labels.scores: Value error, must lie inside the model's folder" in reason(tmp_path)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions whose files were read."""
    versions: list[str] = []
    real = scanning._read

    def reads(path: Path, *rest: Any) -> Model:
        versions.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(scanning, "_read", reads)
    return versions


def test_what_an_earlier_scan_knows_is_read_again_only_where_it_has_changed(tmp_path: Path, read: list[str]) -> None:
    path = write_stub(tmp_path)
    write_stub(tmp_path, "2", nonsense=1)
    models, broken = repository.scan(tmp_path)
    assert read == ["1", "2"]
    assert repository.scan(tmp_path, known=[*models, *broken]) == (models, broken)
    assert read == ["1", "2"]
    (path / "model.yaml").write_text(yaml.safe_dump(STUB | {"slots": 5}))
    ((changed,), _) = repository.scan(tmp_path, known=[*models, *broken])
    assert read == ["1", "2", "1"]
    assert changed.file.slots == 5
    assert changed.digest != models[0].digest


def test_a_policy_that_has_changed_holds_for_versions_that_have_not(tmp_path: Path, read: list[str]) -> None:
    for version in ("1", "2"):
        write_stub(tmp_path, version)
    models, _ = repository.scan(tmp_path)
    (tmp_path / "stub" / "model.yaml").write_text("versions: {latest: 1}")
    again, _ = repository.scan(tmp_path, known=models)
    assert [model.chosen for model in again] == [False, True]
    assert read == ["1", "2"]


@pytest.mark.parametrize("touch", ["bytes", "name", "replaced"])
def test_no_change_of_the_files_goes_unseen(tmp_path: Path, touch: str) -> None:
    path = write_stub(tmp_path)
    weights = path / "weights"
    weights.write_bytes(b"abc")
    status = weights.stat()
    before = only(tmp_path)
    if touch == "bytes":
        weights.write_bytes(b"abd")
    elif touch == "name":
        weights.rename(path / "other")
    else:
        (path / "new").write_bytes(b"abd")
        (path / "new").replace(weights)
    if touch != "name":
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    ((after,), _) = repository.scan(tmp_path, known=[before])
    assert after.digest != before.digest
