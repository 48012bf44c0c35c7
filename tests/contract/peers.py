"""Makes the environments of `make contract`: clients that this project did not write, too heavy for .venv.

    python -m tests.contract.peers

Each has a folder in build/contract/ and is made anew where its list, requirements-NAME.txt, has changed:

- tools: genai-perf, aiperf and MLServer's client
- kserve: KServe's Python client
- perf: perf_analyzer, a binary inside an old wheel of tritonclient, with the two libraries that it links to. One is
  Debian's libb64-0d, which is unpacked and not installed: on other systems it has to be there already.

Where one cannot be made the others are, and its tests are skipped.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "contract"
LIBRARY = "libb64-0d"
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def requirements(name: str) -> Path:
    return Path(__file__).with_name(f"requirements-{name}.txt")


def stamp(name: str) -> Path:
    """Holds the list that the environment was made of."""
    return BUILD / name / ".complete"


def is_there(name: str) -> bool:
    return stamp(name).exists() and stamp(name).read_text() == requirements(name).read_text()


def program(name: str, word: str) -> str:
    return str(BUILD / name / "bin" / word)


def environment() -> dict[str, str]:
    """What genai-perf and perf_analyzer need of it: each other, and the libraries."""
    libraries = (BUILD / "perf" / "lib", BUILD / "perf" / "nvidia" / "cuda_runtime" / "lib")
    path = os.pathsep.join([str(BUILD / "perf" / "bin"), str(BUILD / "tools" / "bin"), os.environ["PATH"]])
    return dict(os.environ) | {"PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}


def make_venv(name: str) -> None:
    venv.create(BUILD / name, clear=True, with_pip=True)
    subprocess.run([program(name, "python"), *PIP, "-r", requirements(name)], check=True)


def make_perf(name: str) -> None:
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    command = (sys.executable, *PIP, "--no-deps", "--target", folder, "-r", requirements(name))
    subprocess.run(command, check=True)
    (folder / "lib").mkdir(exist_ok=True)
    if shutil.which("apt-get") and shutil.which("dpkg"):
        unpack(LIBRARY, folder / "lib")
    subprocess.run(
        [program(name, "perf_analyzer"), "--version"], check=True, env=environment(), stdout=subprocess.DEVNULL
    )


def unpack(package: str, target: Path) -> None:
    """Copies a Debian package's libraries into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "-qq", package], check=True, cwd=folder, stderr=subprocess.DEVNULL)
        (found,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg", "-x", found, folder], check=True)
        for library in Path(folder).rglob("*.so*"):
            shutil.copy(library, target)


ENVIRONMENTS: dict[str, Callable[[str], None]] = {"perf": make_perf, "kserve": make_venv, "tools": make_venv}


def main() -> int:
    failed = 0
    for name, make in ENVIRONMENTS.items():
        if is_there(name):
            continue
        print(f"making {BUILD / name}", flush=True)
        try:
            make(name)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{name} could not be made: {error}")
            failed += 1
        else:
            shutil.copy(requirements(name), stamp(name))
    return int(failed == len(ENVIRONMENTS))


if __name__ == "__main__":
    sys.exit(main())
