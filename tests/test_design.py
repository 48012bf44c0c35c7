"""What the design says of the tests is so."""

import ast
import re
from pathlib import Path

DESIGN = Path("docs/design.md").read_text()


def test_every_invariant_names_tests_that_exist() -> None:
    rows = dict(re.findall(r"^\| (I\d) \|(.*)$", DESIGN, re.MULTILINE))
    assert list(rows) == [f"I{number}" for number in range(1, 10)]
    for invariant, row in rows.items():
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", row)
        assert named, invariant
        for path, name in named:
            assert name in functions(Path(path)), f"{invariant} names {path}::{name}"


def functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
