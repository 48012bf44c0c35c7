"""Stages are carried out as an engine would. Without RUN: that needs root, and `make images-check` has it."""

from pathlib import Path

import pytest

from scripts.rootfs.context import context
from scripts.rootfs.stages import Stages


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("in/a.py", "in/deep/b.py", "in/deep/__pycache__/b.pyc", "out/c.py", "top.txt", ".env"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(name)
    (tmp_path / "source/.dockerignore").write_text("# all\n*\n!in\n!top.txt\n**/__pycache__\n")
    (tmp_path / "base/etc").mkdir(parents=True)
    (tmp_path / "base/etc/base").touch()
    return tmp_path / "source"


def stages(source: Path, text: str) -> Stages:
    (source / "Dockerfile").write_text(text)
    return Stages(
        source / "Dockerfile",
        source=source,
        files=context(source),
        base=source.parent / "base",
        wheels=source.parent,
        scratch=source.parent / "scratch",
    )


def test_only_what_is_let_in_is_in_the_context(source: Path) -> None:
    assert [str(path) for path in context(source)] == ["in/a.py", "in/deep/b.py", "top.txt"]


def test_a_file_goes_into_a_folder_and_a_folder_s_content_goes_where_it_is_told(source: Path) -> None:
    made = stages(source, "FROM b AS x\nWORKDIR /w\nCOPY top.txt in/a.py ./\nCOPY in ./y\nCOPY in/deep/b.py z.py\n")
    root = made.make(made.default).root
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert found == {"etc/base", "w/top.txt", "w/a.py", "w/y/a.py", "w/y/deep/b.py", "w/z.py"}


def test_a_stage_takes_from_another_and_inherits_the_settings_of_its_base(source: Path) -> None:
    text = (
        "FROM b AS one\nCOPY in /data\nFROM b AS two\nENV A=1 B=${A}2\nENV C=${A}3\n"
        'FROM two\nCOPY --from=one /data /got\nUSER 10001:10001\nENTRYPOINT ["a", "b"]\n'
    )
    made = stages(source, text)
    image = made.make(made.default)
    assert (image.root / "got/deep/b.py").exists()
    assert not (image.root / "data").exists()
    assert {name: image.environment[name] for name in "ABC"} == {"A": "1", "B": "2", "C": "13"}
    assert (image.uid, image.entrypoint) == (10_001, ("a", "b"))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("COPY out /x", "line 2: out is not in the context"),
        ("COPY .env /x", "line 2: .env is not in the context"),
        ("COPY --chown=1 in /x", "only --from=STAGE is known here"),
    ],
)
def test_a_copy_of_what_is_not_there_or_not_known_is_an_error(source: Path, step: str, said: str) -> None:
    made = stages(source, f"FROM b\n{step}\n")
    with pytest.raises(ValueError, match=said):
        made.make(made.default)
