"""What the design says of the tests is so."""

import ast
import re
from pathlib import Path

DESIGN = Path("docs/design.md").read_text()
README = Path("README.md").read_text()
FEATURES = re.search(r"## What generation can do\n(.*?)\n## ", README, re.DOTALL)


def test_every_invariant_names_tests_that_exist() -> None:
    rows = dict(re.findall(r"^\| (I\d) \|(.*)$", DESIGN, re.MULTILINE))
    assert list(rows) == [f"I{number}" for number in range(1, 10)]
    for invariant, row in rows.items():
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", row)
        assert named, invariant
        for path, name in named:
            assert name in functions(Path(path)), f"{invariant} names {path}::{name}"


def test_every_feature_that_generation_claims_names_tests_that_exist() -> None:
    assert FEATURES
    rows = [[cell.strip() for cell in row.split("|")] for row in FEATURES[1].splitlines() if row.startswith("| ")]
    claimed = {cells[1]: cells[6] for cells in rows[2:] if cells[5] and cells[5] != "–"}
    assert len(claimed) > 20
    for feature, held_by in claimed.items():
        named = re.findall(r"`(\S+)`", held_by)
        assert named, feature
        for name in named:
            assert list(Path("tests").rglob(f"{name}.py")), f"{feature} names {name}"
    assert not [cells[1] for cells in rows[2:] if cells[5] == "–" and cells[6]]


def functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
