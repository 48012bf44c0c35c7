"""Which engine serves a model: an entry point of group `millrace.engines`, built and warmed on a device."""

from importlib.metadata import EntryPoint, entry_points
from typing import cast

import onnxruntime as ort

from millrace.engine import CONTRACT, Engine, EngineContext
from services.worker import untrusted
from services.worker.repository import warmup
from services.worker.repository.model import Model

GROUP = "millrace.engines"


def resolve_device(wanted: str) -> str:
    """Turns "auto" into "cpu" or "cuda". Raises ValueError where a GPU is wanted and the runtime has none."""
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if wanted == "auto":
        return "cuda" if has_cuda else "cpu"
    if wanted == "cuda" and not has_cuda:
        raise ValueError(
            "device cuda: this ONNX Runtime has no CUDAExecutionProvider; "
            "install the extra millrace[gpu], and not millrace[cpu] beside it"
        )
    if wanted not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {wanted!r}: auto, cpu or cuda")
    return wanted


def load(model: Model, device: str, threads: int) -> Engine:
    """The model's engine, warm, on a device as `resolve_device` names it. Raises ValueError, with a sentence, where it
    cannot be had, whatever it is that the engine or the libraries below it raise."""
    build, device = _entry_point(model.file.engine).load(), resolve_device(device)
    try:
        config = model.file.model_dump()
        config["step_tokens"] = model.file.step_tokens or model.file.prefill_chunk_tokens
        engine = cast(Engine, build(EngineContext(folder=model.folder, config=config, device=device, threads=threads)))
        _check_contract(model.file.engine, getattr(engine, "contract", CONTRACT))
        warmup.warm(engine, model)
        return engine
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        raise ValueError(untrusted.sentence(error)) from error


def _check_contract(name: str, version: int) -> None:
    if version > CONTRACT:
        raise ValueError(f"engine {name} was written for contract {version}, and this worker knows {CONTRACT}")


def _entry_point(name: str) -> EntryPoint:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        raise ValueError(f"unknown engine {name!r}: installed are {', '.join(sorted(known)) or 'none'}")
    return known[name]
