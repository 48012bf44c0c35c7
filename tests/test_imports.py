"""Imports point one way: services → millrace; and nobody loads what it has no use for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def loaded_by(module: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `import module`."""
    code = f"import sys, {module}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def imports_of(folder: str) -> dict[str, set[str]]:
    """The modules that each source file below a folder names in its imports."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        found[str(path.relative_to(ROOT))] = names
    return found


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("millrace", ("services", "tests", "examples")),
        ("services/frontend", ("services.worker", "tests", "examples")),
        ("services/worker", ("services.frontend", "tests", "examples")),
    ],
)
def test_imports_point_one_way(folder: str, forbidden: tuple[str, ...]) -> None:
    prefixes = tuple(f"{name}." for name in forbidden)
    wrong = {
        path: bad
        for path, names in imports_of(folder).items()
        if (bad := {name for name in names if name in forbidden or name.startswith(prefixes)})
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        (
            "services.frontend.__main__",
            {"onnxruntime", "onnx", "numpy", "torch", "tokenizers", "cryptography.x509", "jwt", "services.worker"},
        ),
        ("millrace", {"grpc", "numpy", "redis", "pydantic", "structlog", "msgpack", "services"}),
        ("millrace.client", {"numpy", "redis", "pydantic", "structlog", "msgpack", "prometheus_client", "services"}),
        ("millrace.queue", {"grpc", "services"}),
    ],
)
def test_nobody_loads_what_it_has_no_use_for(module: str, forbidden: set[str]) -> None:
    assert loaded_by(module) & forbidden == set()


def test_the_package_gives_its_names_when_they_are_asked_for() -> None:
    import millrace

    assert {getattr(millrace, name).__name__ for name in millrace.__all__} == set(millrace.__all__)
    with pytest.raises(AttributeError):
        _ = millrace.nothing  # type: ignore[attr-defined]
