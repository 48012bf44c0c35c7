"""SHA256SUMS: a version is what its maintainer says that it is."""

import re
import subprocess
from pathlib import Path

import pytest

from services.worker import repository
from tests.stub_models import write_stub

ZEROS = "0" * 64


@pytest.fixture
def version(tmp_path: Path) -> Path:
    path = write_stub(tmp_path)
    (path / "data").mkdir()
    (path / "data" / "we ights").write_bytes(b"123")
    return path


def sums(version: Path, *flags: str) -> str:
    """As sha256sum(1) writes them."""
    names = sorted(path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file())
    done = subprocess.run(["sha256sum", *flags, "--", *names], cwd=version, check=True, capture_output=True, text=True)
    return done.stdout


def reason(version: Path, text: str) -> str:
    (version / "SHA256SUMS").write_text(text)
    models, broken = repository.scan(version.parents[1])
    assert not models
    return broken[0].reason


@pytest.mark.parametrize("flags", [(), ("--binary",)])
def test_a_version_whose_files_are_as_they_were_is_served(version: Path, flags: tuple[str, ...]) -> None:
    (version / "SHA256SUMS").write_text(sums(version, *flags))
    (model,), broken = repository.scan(version.parents[1])
    assert not broken
    assert model.name == "stub"


def test_names_may_begin_with_the_folder_itself_and_hold_ends_of_lines(version: Path) -> None:
    (version / "a\nb\\c").write_bytes(b"odd")
    text = re.sub("[0-9a-f]{64}", lambda found: found[0].upper(), sums(version))
    assert "\\n" in text
    (version / "SHA256SUMS").write_text(text.replace("  model", "  ./model"))
    assert not repository.scan(version.parents[1])[1]


def test_the_digest_is_the_same_as_by_itself_and_changes_with_the_manifest(version: Path) -> None:
    before = repository.scan(version.parents[1])[0][0].digest
    (version / "SHA256SUMS").write_text(sums(version))
    after = repository.scan(version.parents[1])[0][0].digest
    (version / "SHA256SUMS").unlink()
    assert before == repository.scan(version.parents[1])[0][0].digest != after


def test_a_file_that_has_changed_is_named(version: Path) -> None:
    text = sums(version)
    (version / "data" / "we ights").write_bytes(b"124")
    assert reason(version, text).startswith("data/we ights is not the file of SHA256SUMS: its SHA-256 is ")


def test_a_file_more_or_less_is_named(version: Path) -> None:
    text = sums(version)
    assert reason(version, text + f"{ZEROS}  more\n") == "more is missing: SHA256SUMS names it"
    (version / "also").write_bytes(b"")
    assert reason(version, text) == "also is not in SHA256SUMS"
    assert reason(version, "") == "also is not in SHA256SUMS"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{ZEROS}  ../secret", "line 1: ../secret must lie inside the model's folder"),
        (f"{ZEROS}  data/../../secret", "must lie inside the model's folder"),
        (f"{ZEROS} */etc/passwd", "line 1: /etc/passwd must lie inside the model's folder"),
        (f"{ZEROS[1:]}  model.yaml", "line 1 is not a SHA-256 sum and a name"),
        (f"{ZEROS}\tmodel.yaml", "line 1 is not a SHA-256 sum and a name"),
        (f"SHA256 (model.yaml) = {ZEROS}", "line 1 is not a SHA-256 sum and a name"),
        (f"{ZEROS}  a\n{'1' * 64}  ./a", "a has two sums"),
        ("\n" * (1 << 20) + "x", "SHA256SUMS has more than"),
    ],
)
def test_a_manifest_that_is_not_in_order_is_refused(version: Path, line: str, expected: str) -> None:
    assert expected in reason(version, line)


def test_a_manifest_that_is_no_text_is_refused(version: Path) -> None:
    (version / "SHA256SUMS").write_bytes(b"\xff\xfe")
    assert repository.scan(version.parents[1])[1][0].reason == "SHA256SUMS is not UTF-8"
