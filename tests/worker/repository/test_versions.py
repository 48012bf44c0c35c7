"""Which versions of a model are served."""

import os
from pathlib import Path

import pytest

from services.worker import repository
from tests.stub_models import write_stub


def write(folder: Path, policy: str, *numbers: str) -> None:
    for number in numbers:
        write_stub(folder, version=number)
    (folder / "stub" / "model.yaml").write_text(policy)


def chosen(folder: Path) -> list[str]:
    models, broken = repository.scan(folder)
    assert not broken
    return [model.version for model in models if model.chosen]


def reasons(folder: Path) -> dict[str, str]:
    return {one.path.name: one.reason for one in repository.scan(folder)[1]}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("versions: {latest: 1}", ["10"]),
        ("versions: {latest: 2}", ["9", "10"]),
        ("versions: {latest: 9}", ["1", "9", "10"]),
        ("versions: {specific: [9, rc1]}", ["9", "rc1"]),
        ("versions: {specific: ['1']}", ["1"]),
        ("versions: {all: true}", ["1", "9", "10", "rc1"]),
        ("{}", ["1", "9", "10", "rc1"]),
    ],
)
def test_a_policy_chooses_among_the_versions_of_its_model(tmp_path: Path, policy: str, expected: list[str]) -> None:
    write(tmp_path, policy, "9", "10", "1", "rc1")
    write_stub(tmp_path, name="other", version="3")
    assert chosen(tmp_path) == ["3", *expected]
    assert len(repository.scan(tmp_path)[0]) == 5


def test_without_a_policy_all_versions_are_served(tmp_path: Path) -> None:
    for number in ("1", "2"):
        write_stub(tmp_path, version=number)
    assert chosen(tmp_path) == ["1", "2"]


def test_the_latest_version_is_the_last_that_is_in_order(tmp_path: Path) -> None:
    write(tmp_path, "versions: {latest: 1}", "1", "2")
    (tmp_path / "stub" / "2" / "model.yaml").write_text("[")
    models, (broken,) = repository.scan(tmp_path)
    assert [(model.version, model.chosen) for model in models] == [("1", True)]
    assert broken.path.name == "2"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("versions: {latest: 0}", "stub/model.yaml: versions.latest: Input should be greater than"),
        ("versions: {latest: 1, all: true}", "versions: Value error, name one of all, latest and specific"),
        ("versions: {}", "name one of all, latest and specific"),
        ("versions: {all: false}", "versions.all"),
        ("versions: {all: null}", "name one of all, latest and specific"),
        ("versions: {specific: []}", "versions.specific"),
        ("versions: {specific: [../2]}", "versions.specific.0"),
        ("versions: {specific: [true]}", "versions.specific.0"),
        ("versions: {newest: 1}", "versions.newest: Extra inputs are not permitted"),
        ("name: stub", "name: Extra inputs are not permitted"),
        ("[", "model.yaml is not YAML"),
        ("- 1", "stub/model.yaml: "),
        ("#" * 70_000, "model.yaml has more than 65536 bytes"),
    ],
)
def test_a_policy_that_is_wrong_breaks_all_versions_and_says_why(tmp_path: Path, policy: str, expected: str) -> None:
    write(tmp_path, policy, "1", "2")
    assert repository.scan(tmp_path)[0] == []
    said = reasons(tmp_path)
    assert sorted(said) == ["1", "2"]
    assert expected in said["1"] == said["2"]


def test_a_version_that_a_policy_names_and_that_is_missing_is_broken(tmp_path: Path) -> None:
    write(tmp_path, "versions: {specific: [1, 3]}", "1", "2")
    assert reasons(tmp_path) == {"3": "stub/model.yaml names it, and it is missing"}


def test_a_policy_that_is_a_link_a_pipe_or_a_folder_is_not_read(tmp_path: Path) -> None:
    write_stub(tmp_path / "models")
    policy = tmp_path / "models" / "stub" / "model.yaml"
    (tmp_path / "secret").write_text("versions: {all: true}")
    policy.symlink_to(tmp_path / "secret")
    assert "model.yaml is a symbolic link" in reasons(tmp_path / "models")["1"]
    policy.unlink()
    os.mkfifo(policy)
    assert "model.yaml is neither a file nor a folder" in reasons(tmp_path / "models")["1"]
    policy.unlink()
    policy.mkdir()
    assert "model.yaml is a folder" in reasons(tmp_path / "models")["1"]
