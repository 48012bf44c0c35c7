"""From a folder as transformers saves it to a model's folder."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.parity.families import CONTEXT_LENGTH, Family

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""With two, torch 2.13 once computed the second half of a table of cosines with errors of 1.5e-4."""


def export(family: Family, original: Path, folder: Path, name: str) -> None:
    """Writes the graph, genai_config.json, tokenizer.json and model.yaml. Raises RuntimeError with the exporter's last
    words."""
    command = _mobius(original, folder) if family.exporter == "mobius" else _genai(family, original, folder)
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD
    )
    if done.returncode:
        raise RuntimeError(f"{family.exporter} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    model = {
        "name": name,
        "task": "text-generation",
        "engine": "generation",
        "graphs": {family.device: {"path": ".", "precision": family.precision}},
        "slots": 4,
        "context_length": CONTEXT_LENGTH,
        "prefill_chunk_tokens": 16,
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(model))


def _genai(family: Family, original: Path, folder: Path) -> list[str]:
    command = ["onnxruntime_genai.models.builder", "-i", str(original), "-o", str(folder)]
    command += ["-p", family.precision, "-e", family.device, "-c", str(original / "cache")]
    return [*command, *(["--extra_options", *family.options] if family.options else [])]


def _mobius(original: Path, folder: Path) -> list[str]:
    target = ["build", "--config", str(original), str(folder)]
    return ["mobius", *target, "--dtype", "f32", "--execution-provider", "cpu", "--runtime", "ort-genai"]
