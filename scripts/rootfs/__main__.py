"""`make images-check`: builds the images' root filesystems, looks at them, runs them; exits 1 where one is wrong."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.rootfs import life, look
from scripts.rootfs.base import make_base
from scripts.rootfs.context import context
from scripts.rootfs.stages import Image, Stages

ROOT = Path(__file__).resolve().parent.parent.parent
SCRATCH = ROOT / "build/rootfs"
NEEDED = ("bwrap", "debootstrap", "ldd", "setpriv", "strip")
LOCKS = {
    "frontend": ("services/build.lock", "services/frontend/requirements.lock"),
    "worker": ("services/build.lock", "services/worker/requirements-cpu.lock"),
    "worker-cuda": ("services/build.lock", "services/worker/requirements-cuda.lock"),
}
FROM_OUTSIDE = ("libcuda.so", "libnvidia-ml.so", "libnvinfer", "libnvonnxparser")
"""The driver, which NVIDIA's container toolkit brings in from the host; and TensorRT, which nothing here asks for."""


def download(name: str) -> Path:
    """The wheels of an image's locks, checked by their hashes. Answers their folder."""
    wheels = SCRATCH / "wheels" / name
    for lock in LOCKS[name]:
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--require-hashes", "-r", ROOT / lock, "-d", wheels], check=True)
    return wheels


def build(name: str, base: Path) -> Image:
    service, _, target = name.partition("-")
    stages = Stages(
        ROOT / "services" / service / "Dockerfile",
        source=ROOT,
        files=context(ROOT),
        base=base,
        wheels=download(name),
        scratch=SCRATCH / name,
    )
    print(name, flush=True)
    image = stages.make(target or stages.default)
    for folder in image.root.parent.iterdir():
        if folder != image.root:
            shutil.rmtree(folder)
    return image


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.rootfs", description=__doc__)
    parser.add_argument("--cuda", action="store_true", help="the worker's CUDA target, too: downloads 1.5 GB; not run")
    arguments = parser.parse_args()
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        print(f"images-check needs root{''.join(f', {name}' for name in missing)}", file=sys.stderr)
        return 2
    base = make_base(SCRATCH / "base")
    images = {name: build(name, base) for name in LOCKS if arguments.cuda or name != "worker-cuda"}
    faults = [f"{name}: {fault}" for name, image in images.items() for fault in _faults(name, image)]
    _print_sizes(images)
    if faults:
        print(*faults, sep="\n")
        return 1
    for what, seen in life.live(images["frontend"], images["worker"]).items():
        print(f"{what:<40}{seen}")
    return 0


def _faults(name: str, image: Image) -> list[str]:
    return look.faults(image, look.KINDS[name.partition("-")[0]], FROM_OUTSIDE if name == "worker-cuda" else ())


def _print_sizes(images: dict[str, Image]) -> None:
    print("\n| MB | base and Python | dependencies | Millrace | whole |\n| --- | --- | --- | --- | --- |")
    for name, image in images.items():
        print(f"| {name} | " + " | ".join(f"{size / 1e6:.1f}" for size in look.sizes(image).values()) + " |")
    for name, image in images.items():
        print(f"{name}: " + ", ".join(f"{part} {size / 1e6:.1f}" for part, size in look.largest(image, 8)))


if __name__ == "__main__":
    sys.exit(main())
