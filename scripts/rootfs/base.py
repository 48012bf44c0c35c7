"""What stands in for python:3.11-slim-bookworm, which cannot be fetched without an engine: Debian bookworm by
debootstrap with the same packages, and this machine's Python 3.11 in /usr/local."""

import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = (
    *("ca-certificates", "libbz2-1.0", "libdb5.3", "libexpat1", "libffi8", "libgdbm6", "liblzma5", "libncursesw6"),
    *("libreadline8", "libsqlite3-0", "libssl3", "libuuid1", "netbase", "tzdata", "zlib1g"),
)
SLIMMED = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists")
"""What Debian's slim images leave out."""
ABSENT = shutil.ignore_patterns("__pycache__", "test", "tests", "idle_test", "site-packages", "libpython*.a")


def make_base(folder: Path) -> Path:
    """The base's root; made once, in half a minute. Needs root, debootstrap and Debian's mirror."""
    if sys.version_info[:2] != (3, 11):
        raise ValueError("the stand-in for the base image is made of this machine's Python, which is not 3.11")
    root = folder / "root"
    if not (folder / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", root],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for name in SLIMMED:
            shutil.rmtree(root / name, ignore_errors=True)
        _add_python(root)
        (folder / "complete").touch()
    return root


def _add_python(root: Path) -> None:
    """Laid out as the image's: bytecode, tests and debugging symbols are absent, pip and setuptools are there."""
    prefix, local = Path(sys.base_prefix), root / "usr/local"
    shutil.copytree(prefix / "lib/python3.11", local / "lib/python3.11", symlinks=True, ignore=ABSENT)
    (local / "lib/python3.11/site-packages").mkdir()
    for library in (prefix / "lib").glob("libpython3*.so*"):
        shutil.copy2(library, local / "lib", follow_symlinks=False)
    shutil.copy2(prefix / "bin/python3.11", local / "bin")
    for name in ("python", "python3"):
        (local / "bin" / name).symlink_to("python3.11")
    binaries = [local / "bin/python3.11", *(local / "lib").rglob("*.so*")]
    subprocess.run(["strip", "--strip-unneeded", *(path for path in binaries if not path.is_symlink())], check=True)
    subprocess.run(["chroot", root, "ldconfig"], check=True)
    subprocess.run(["chroot", root, "/usr/local/bin/python", "-m", "ensurepip", "--default-pip"], check=True)
