"""The card, as ONNX Runtime and the driver see it."""

import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from services.worker.device import device_name

PROVIDER = "CUDAExecutionProvider"
QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits", "--id=0"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of the card, whoever uses it."""

    total_bytes: int
    used_bytes: int


def why_not() -> str | None:
    """Why nothing can be run on a GPU here; None where it can."""
    if PROVIDER not in ort.get_available_providers():
        return f"this onnxruntime has no {PROVIDER}; the `gpu` extra has"
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:  # ONNX Runtime raises types of its own, of which none says what it is about.
        return f"no CUDA device answers: {error}"
    return None


def name() -> str:
    asked = _ask()
    return asked[0] if asked else device_name("cuda")


def memory() -> Memory | None:
    """None where the driver's tool is not there."""
    asked = _ask()
    return Memory(total_bytes=int(asked[1]) << 20, used_bytes=int(asked[2]) << 20) if asked else None


def _ask() -> list[str] | None:
    if shutil.which(QUERY[0]) is None:
        return None
    answer = subprocess.run(QUERY, capture_output=True, text=True, check=False, timeout=30)
    return [field.strip() for field in answer.stdout.strip().split(",")] if answer.returncode == 0 else None
