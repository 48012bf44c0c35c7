"""An export from its order to its end: what is looked at before, and what is told."""

import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from millrace.cli.export import export as command
from millrace.exporting import accepting, packages, room
from millrace.exporting.staging import PREFIX
from tests.exporting.orders import exported, write_function

SLOPE = """
from sklearn.linear_model import LinearRegression
return LinearRegression().fit([[0.0, 1.0], [1.0, 0.0]], [1.0, 2.0])
"""
app = typer.Typer()
app.command()(command)


def run(*arguments: object) -> tuple[int, str, str]:
    """Of `millrace export`: its exit status, standard output and standard error."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "140"})
    return done.exit_code, done.stdout, done.stderr


def test_a_disk_or_memory_without_room_is_said_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"takes about 1000000\.0 GB of disk, and .* has room for"):
        room.check_disk(tmp_path / "not" / "there", 10**15)
    with pytest.raises(ValueError, match=r"takes about 1000000\.0 GB of memory"):
        room.check_memory(10**15)
    room.check_disk(tmp_path, 1)
    room.check_memory(1)


def test_a_package_that_is_missing_is_said_with_the_command_that_installs_it() -> None:
    with pytest.raises(ValueError, match=r"needs no_such_package.*pip install 'millrace\[export\]'"):
        packages.need(("sys", "no_such_package"), "a model")


def test_what_the_worker_refuses_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that is there and refuses everything."""
    pytest.importorskip("skl2onnx")
    (tmp_path / "refusing.py").write_text("import sys\nsys.exit('made/1: no')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(accepting, "CHECK", "refusing")
    with pytest.raises(ValueError, match="the worker refuses the model: made/1: no"):
        exported(write_function(tmp_path, SLOPE), tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_without_a_worker_nobody_is_asked_and_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skl2onnx")
    monkeypatch.setattr(accepting, "CHECK", "no.such.module")
    assert not exported(write_function(tmp_path, SLOPE), tmp_path / "models").accepted


def test_the_command_tells_parity_and_what_comes_next(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    status, text, error = run(write_function(tmp_path, SLOPE), "--out", tmp_path / "models" / "slope" / "1")
    assert (status, error) == (0, "")
    assert "of the largest value" in text
    assert "slope/1, " in text
    assert f"millrace up --models {tmp_path / 'models'}" in text
    assert (tmp_path / "models" / "slope" / "1" / "SHA256SUMS").is_file()


def test_a_model_that_differs_too_much_is_told_with_the_table(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    source = write_function(tmp_path, SLOPE)
    status, text, error = run(source, "--out", tmp_path / "models" / "slope" / "1", "--tolerance", "1e-30")
    assert status == 2
    assert "of the largest value" in text
    assert error.startswith("millrace: nothing is published: ")
    assert not list((tmp_path / "models").glob(f"{PREFIX}*"))


def test_wrong_use_is_one_sentence(tmp_path: Path) -> None:
    for arguments, words in (
        (("none.keras", "--out", tmp_path / "a" / "1"), "none.keras: there is no such file"),
        ((sys.executable, "--out", tmp_path / "a b" / "1"), "must end in NAME/VERSION"),
        (("x.pt", "--out", tmp_path / "a" / "1"), "weights_only=True"),
        (("x:y", "--out", tmp_path / "a" / "1", "--keys", tmp_path / "none.yaml"), "--keys"),
    ):
        status, _, error = run(*arguments)
        assert status == 2
        assert words in error
        assert error.count("\n") == 1
