"""What the design says of the tests is so."""

import ast
import re
from pathlib import Path

import pytest

DESIGN = Path("docs/design.md").read_text()
README = Path("README.md").read_text()


def test_every_invariant_names_tests_that_exist() -> None:
    rows = dict(re.findall(r"^\| (I\d) \|(.*)$", DESIGN, re.MULTILINE))
    assert list(rows) == [f"I{number}" for number in range(1, 10)]
    for invariant, row in rows.items():
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", row)
        assert named, invariant
        for path, name in named:
            assert name in functions(Path(path)), f"{invariant} names {path}::{name}"


@pytest.mark.parametrize(("title", "ours"), [("What generation can do", 4), ("Beside other servers", 8)])
def test_every_feature_that_is_claimed_names_tests_that_exist(title: str, ours: int) -> None:
    """The column `ours` of the table says what Millrace does, the next one which tests hold it."""
    section = re.search(rf"## {title}\n(.*?)\n## ", README, re.DOTALL)
    assert section
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in section[1].splitlines() if row.startswith("| ")]
    claimed = {cells[0]: cells[ours + 1] for cells in rows[2:] if cells[ours] and cells[ours] != "–"}
    assert len(claimed) > 20
    for feature, held_by in claimed.items():
        named = re.findall(r"`(\S+)`", held_by)
        assert named, feature
        for name in named:
            assert list(Path("tests").rglob(f"{name}.py")), f"{feature} names {name}"
    assert not [cells[0] for cells in rows[2:] if cells[ours] == "–" and cells[ours + 1]]


def functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
