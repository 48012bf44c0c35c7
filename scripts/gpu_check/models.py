"""The models that are measured, and how they are opened."""

import dataclasses
from pathlib import Path
from typing import Literal

import yaml

from millrace.engine import EngineContext
from services.worker.generation import config
from services.worker.generation.config import ModelConfig
from services.worker.generation.decoder import Decoder
from services.worker.generation.paged import PagedDecoder
from services.worker.generation.paged.graph import Transform
from services.worker.generation.slot.decoder import SlotDecoder
from services.worker.repository import MODEL_FILE, ModelFile
from tests.models import LLAMA_1B, LLAMA_8B, Llama, write_model

SIZES = {"1B": LLAMA_1B, "8B": LLAMA_8B}
Dialect = Literal["gqa", "paged"]
DIALECTS: tuple[Dialect, ...] = ("gqa", "paged")
SMALL = Llama(
    layers=4,
    hidden=256,
    heads=8,
    kv_heads=2,
    head_size=64,
    intermediate=512,
    vocabulary_size=2048,
    graph_context_length=1024,
    context_length=1024,
    prefill_chunk_tokens=128,
    step_tokens=1024,
)
"""Large enough for the kernels that the big ones take."""


def served_on(shape: Llama, dialect: Dialect, device: Literal["cpu", "cuda"]) -> Llama:
    """The same model for a device, in the precision that it is meant to have there."""
    return dataclasses.replace(shape, dialect=dialect, device=device, precision="fp16" if device == "cuda" else "fp32")


def sized(shape: Llama, *, rows: int, length: int, chunk: int) -> Llama:
    """The same model, served to so many rows of up to `length` positions, with `chunk` prompt tokens in a run."""
    return dataclasses.replace(shape, slots=rows, context_length=length, prefill_chunk_tokens=chunk, step_tokens=chunk)


def context(shape: Llama, folder: Path, *, threads: int = 0) -> EngineContext:
    """Of a model in `folder`, which is written unless it is there. Its model.yaml says what `shape` does."""
    name = f"{shape.dialect}-{shape.stored_precision}-{shape.layers}x{shape.hidden}"
    version = folder / name / "1"
    if not version.exists():
        write_model(folder, name, shape=shape)
    file = yaml.safe_load((version / MODEL_FILE).read_text())
    served = {key: getattr(shape, key) for key in ("slots", "context_length", "prefill_chunk_tokens", "step_tokens")}
    dumped = ModelFile.model_validate(file | served).model_dump()
    return EngineContext(folder=version, config=dumped, device=shape.device, threads=threads)


def settings(shape: Llama, folder: Path) -> ModelConfig:
    return config.read(context(shape, folder))


def open_decoder(shape: Llama, folder: Path, *, captures: bool = False, transform: Transform | None = None) -> Decoder:
    """`captures`: whether decode runs of a paged graph are CUDA graphs. `transform`: what becomes of a paged graph on a
    device that has no kernel for it."""
    if shape.dialect == "paged":
        return PagedDecoder(
            settings(shape, folder), device=shape.device, threads=0, captures=captures, transform=transform
        )
    return SlotDecoder(settings(shape, folder), device=shape.device, threads=0)
