"""Files of a model's folder that are not what they should be."""

import os
from pathlib import Path

import pytest

from services.worker import repository, untrusted
from services.worker.repository import scanning
from tests.models import write_model
from tests.stub_models import write_stub


def reason(repository_folder: Path) -> str:
    models, broken = repository.scan(repository_folder)
    assert not models
    (one,) = broken
    return one.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a [x]\nb: *a", "an alias, which is not taken"),
        ("a: &a [*a]", "an alias, which is not taken"),
        ("a: " + "[" * 5_000, "nested too deeply"),
        ("- " * 5_000, "nested too deeply"),
        ("a: !!python/object/apply:os.system ['false']", "could not determine a constructor"),
        ("a: !!bool x", "'x'"),
        ("a: !!timestamp x", "model.yaml: "),
        ("a: " + "9" * 5_000, "4300"),
        ("#" * (untrusted.YAML_BYTES + 1), "model.yaml has more than 65536 bytes"),
    ],
)
def test_yaml_that_is_more_than_plain_data_is_a_reason_to_refuse_a_model(
    tmp_path: Path, text: str, expected: str
) -> None:
    (write_stub(tmp_path) / "model.yaml").write_text(text)
    assert expected in reason(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"model":' * 50_000, " " * (untrusted.CONFIG_BYTES + 1), "9" * 5_000])
def test_json_without_end_or_bottom_is_a_reason_to_refuse_a_model(tmp_path: Path, text: str) -> None:
    (write_model(tmp_path) / "genai_config.json").write_text(text)
    assert "genai_config.json" in reason(tmp_path)


def test_a_hard_link_is_refused_for_its_other_name_may_be_anywhere(tmp_path: Path) -> None:
    version = write_model(tmp_path / "models")
    (tmp_path / "secret").write_bytes(b"weights")
    os.link(tmp_path / "secret", version / "more")
    assert "more is a hard link" in reason(tmp_path / "models")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(write_model(tmp_path) / "more")
    assert "more is neither a file nor a folder" in reason(tmp_path)


def test_a_folder_whose_depth_no_recursion_could_follow_is_listed(tmp_path: Path) -> None:
    version = write_stub(tmp_path)
    version.joinpath(*["d"] * 900).mkdir(parents=True)
    assert untrusted.names(version) == ["model.yaml"]


def test_names_that_are_no_text_are_told_as_text(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    write_stub(tmp_path, name=odd)
    ((path, said),) = [(str(one.path), one.reason) for one in repository.scan(tmp_path)[1]]
    assert Path(path).parent.name == r"\udcff\udcfe"
    assert (path + said).encode()


def test_a_name_folder_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stub(tmp_path, name="locked")
    write_stub(tmp_path, name="open")
    real = scanning._folders

    def folders(path: Path) -> list[Path]:
        if path.name == "locked":
            raise PermissionError(13, "not yours", str(path))
        return real(path)

    monkeypatch.setattr(scanning, "_folders", folders)
    models, (broken,) = repository.scan(tmp_path)
    assert [model.name for model in models] == ["open"]
    assert "not yours" in broken.reason


def test_whatever_the_libraries_below_an_engine_raise_becomes_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A StopIteration would never come out of a thread's future, and a panic is no Exception."""

    def panics(_: Path) -> None:
        raise StopIteration("x" * 5_000)

    write_model(tmp_path)
    monkeypatch.setattr("services.worker.generation.engine.Vocabulary", panics)
    with pytest.raises(ValueError, match=r"^StopIteration: x+$") as caught:
        repository.load(repository.scan(tmp_path)[0][0], "cpu", threads=1)
    assert len(str(caught.value)) == untrusted.SENTENCE_CHARACTERS
