"""Makes the Python stubs from protos/ (`make proto`).

With `--check` (part of `make lint`) it compares the committed ones with what protos/ says now.
"""

import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUB_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(target: Path) -> None:
    """Writes the stubs of every proto below `target`; the proto path is the import path, so nothing is patched."""
    googleapis = distribution("googleapis-common-protos").locate_file("")
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{googleapis}", *outputs, *files]
    plugins = str(Path(sys.executable).parent)
    subprocess.run(command, check=True, env={"PATH": plugins})


def stubs(root: Path) -> dict[str, bytes]:
    found = (path for path in (root / "millrace").rglob("*") if path.name.endswith(STUB_SUFFIXES))
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def drift() -> list[str]:
    """The stubs that differ from what protos/ says now, by path."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh, committed = stubs(Path(folder)), stubs(ROOT)
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        stale = drift()
        for name in stale:
            print(f"{name}: differs from protos/; run `make proto`")
        return 1 if stale else 0
    generate(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
