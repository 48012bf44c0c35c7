"""One set of random weights on disk, in the form that each contestant reads."""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bench.bare_generation import Bare
from bench.generation import checkpoint
from bench.generation.workloads import Requests
from bench.models import llama
from services.worker import repository

NAME = "llama"
CONTEXT = 1024
"""Of the graph: room for the longest prompt; what is served has the context that its workload needs."""
MODEL_FILE, GENAI_CONFIG = "model.yaml", "genai_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The model's folder, as `bench.models.llama` writes it."""

    folder: Path
    vocabulary: int

    def bare(self, requests: Requests, *, slots: int, threads: int) -> Bare:
        longest = max(map(len, requests.prompts)) + max(requests.tokens)
        return Bare(
            graph=str(self.folder / "model.onnx"),
            layers=llama.LLAMA.layers,
            kv_heads=llama.LLAMA.kv_heads,
            head_size=llama.LLAMA.head_size,
            vocabulary=self.vocabulary,
            context=longest + 1,
            slots=slots,
            threads=threads,
            prompts=[list(prompt) for prompt in requests.prompts],
            tokens=list(requests.tokens),
        )


def write(folder: Path) -> Weights:
    shape = replace(llama.LLAMA, graph_context_length=CONTEXT, context_length=CONTEXT)
    return Weights(folder=llama.write(folder, NAME, shape), vocabulary=shape.vocabulary_size)


def write_served(weights: Weights, folder: Path, changes: dict[str, Any]) -> Path:
    """A model repository in `folder`, unless it is there already, whose model.yaml has some keys changed. It is a copy:
    Millrace takes no links. Raises ValueError where Millrace refuses it."""
    target = folder / NAME / "1"
    if not target.exists():
        shutil.copytree(weights.folder, target)
    described = yaml.safe_load((weights.folder / MODEL_FILE).read_text())
    (target / MODEL_FILE).write_text(yaml.safe_dump(described | changes, sort_keys=False))
    _, broken = repository.scan(folder)
    if broken:
        raise ValueError(broken[0].reason)
    return folder


def write_genai(weights: Weights, folder: Path, threads: int) -> Path:
    """For onnxruntime-genai, with as many threads as all others have."""
    folder.mkdir(parents=True)
    for path in weights.folder.iterdir():
        if path.name != GENAI_CONFIG:
            os.link(path, folder / path.name)
    described = json.loads((weights.folder / GENAI_CONFIG).read_text())
    described["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    (folder / GENAI_CONFIG).write_text(json.dumps(described, indent=1))
    return folder


def write_checkpoint(weights: Weights, folder: Path) -> Path:
    """For whatever reads Hugging Face's format. What is there is overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write(weights.folder, folder)
    shutil.copy(weights.folder / checkpoint.TOKENIZER, folder)
    return folder
