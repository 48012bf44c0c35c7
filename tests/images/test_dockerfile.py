"""Which Dockerfiles are understood, and how."""

import pytest

from scripts.rootfs.dockerfile import parse, substitute


def test_a_stage_has_its_steps_with_their_lines_joined() -> None:
    head = "# a comment\nARG TAG=3.11\nFROM python:${TAG} AS builder\n"
    builder, final = parse(head + "RUN one \\\n # not this\n && two\n\nFROM builder\nUSER 10001\n")
    assert (builder.name, builder.base, final.name, final.base) == ("builder", "python:3.11", "1", "builder")
    assert [(step.instruction, step.text, step.line) for step in builder.steps] == [("RUN", "one && two", 4)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM a\nADD https://a.example/b /b", "line 2: the instruction ADD is not known here"),
        ("FROM a\nrun b", "line 2: the instruction run is not known here"),
        ("RUN b\nFROM a", "line 1: RUN before the first FROM"),
        ("FROM --platform=linux/arm64 a AS b", "line 1: FROM .* is known here"),
        ("FROM a\nRUN b \\", "line 2: the last line goes on"),
    ],
)
def test_what_is_not_known_is_an_error(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_an_entry_point_must_be_in_exec_form() -> None:
    (stage,) = parse('FROM a\nENTRYPOINT ["python", "-m", "b"]\nENTRYPOINT python -m b')
    assert stage.steps[0].items == ["python", "-m", "b"]
    with pytest.raises(ValueError, match="line 3: ENTRYPOINT is not in exec form"):
        _ = stage.steps[1].items


def test_references_are_replaced_and_unknown_ones_are_empty() -> None:
    assert substitute("$A-${B}-${C}", {"A": "1", "B": "2"}) == "1-2-"
