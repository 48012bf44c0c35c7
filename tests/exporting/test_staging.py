"""A version appears whole or not at all, however its export ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from millrace.exporting import manifest, staging
from millrace.exporting.staging import FAILED_PREFIX, PREFIX

WRITES = """
import sys
from pathlib import Path
from millrace.exporting.staging import staging
try:
    with staging(Path(sys.argv[1]), "made", "1") as folder:
        (folder / "model.onnx").write_text("half")
        print("writing", flush=True)
        sys.stdin.read()
except KeyboardInterrupt:
    sys.exit(130)
"""


def left(models: Path) -> list[Path]:
    return list(models.glob(f"{PREFIX}*"))


def writer(models: Path) -> subprocess.Popen[str]:
    """A process in the middle of an export."""
    command = [sys.executable, "-c", WRITES, str(models)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    return child


def end(child: subprocess.Popen[str]) -> int:
    child.communicate()
    return child.returncode


def test_a_folder_is_published_with_all_that_was_written(tmp_path: Path) -> None:
    with staging.staging(tmp_path, "made", "1") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
        assert not (tmp_path / "made").exists()
        staging.publish(folder, tmp_path / "made" / "1")
    assert (tmp_path / "made" / "1" / "deep" / "file").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def fail(models: Path, *, keep_failed: bool = False) -> None:
    """An export that goes wrong behind its first file."""
    with staging.staging(models, "made", "1", keep_failed=keep_failed) as folder:
        (folder / "file").write_text("x")
        raise ValueError("wrong")


def publish(models: Path, content: str) -> None:
    with staging.staging(models, "made", "1") as folder:
        (folder / "file").write_text(content)
        staging.publish(folder, models / "made" / "1")


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"):
        fail(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_failed_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong") as raised:
        fail(tmp_path, keep_failed=True)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith(FAILED_PREFIX)
    assert (kept / "made" / "1" / "file").read_text() == "x"
    assert str(kept) in raised.value.__notes__[0]


def test_a_version_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    publish(tmp_path, "theirs")
    with pytest.raises(ValueError, match="cannot be published"):
        publish(tmp_path, "ours")
    assert (tmp_path / "made" / "1" / "file").read_text() == "theirs"
    assert not left(tmp_path)


def test_an_interrupted_export_cleans_up_after_itself(tmp_path: Path) -> None:
    child = writer(tmp_path)
    assert left(tmp_path)
    child.send_signal(signal.SIGINT)
    assert end(child) == 130
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_removed_by_the_next_and_a_living_one_is_let_be(tmp_path: Path) -> None:
    killed, living = writer(tmp_path), writer(tmp_path)
    killed.kill()
    end(killed)
    assert len(left(tmp_path)) == 2
    assert len(staging.sweep(tmp_path)) == 1
    assert len(left(tmp_path)) == 1
    assert end(living) == 0
    assert not left(tmp_path)


def test_the_manifest_is_what_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").write_text("b")
    (tmp_path / "a").write_bytes(b"\0" * 1_000)
    read = list[float]()
    manifest.write(tmp_path, read.append)
    assert sum(read) == 1_001 == manifest.size(tmp_path) - (tmp_path / manifest.MANIFEST_FILE).stat().st_size
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", manifest.MANIFEST_FILE], cwd=tmp_path, check=True)
