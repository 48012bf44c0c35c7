"""The model repository: NAME/VERSION/model.yaml, and beside it whatever the model's engine reads.

    pycode/1/model.yaml        name: pycode, task: text-generation, engine: generation, …
    pycode/1/model.onnx        …
    plain/1/anything.onnx      no model.yaml: the graph as it is, tensors in and out

Nothing here follows a link or leaves the repository. An engine is an entry point of group `millrace.engines`.
"""

import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path, PurePosixPath
from typing import cast

import onnxruntime as ort
from pydantic import ValidationError

from millrace.engine import CONTRACT, Engine, EngineContext
from services.worker import untrusted
from services.worker.model_file import NAME, GraphEntry, ModelFile, inside

__all__ = ["MODEL_FILE", "Broken", "Model", "ModelFile", "load", "resolve_device", "scan"]

GROUP = "millrace.engines"
MODEL_FILE = "model.yaml"
GRAPH_SUFFIX = ".onnx"
GENERATION_FILES = frozenset({"genai_config.json", "tokenizer.json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One version of a model whose files are in order."""

    folder: Path
    version: str
    file: ModelFile
    digest: str
    """Hex SHA-256 over the names, sizes and SHA-256 sums of all files of the version."""

    @property
    def name(self) -> str:
        return self.file.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A version that cannot be served, and why."""

    path: Path
    reason: str


def scan(folder: Path) -> tuple[list[Model], list[Broken]]:
    """All versions under `folder`: models by name, then versions, numbers before other names and in their order.
    Raises FileNotFoundError where there is no such folder."""
    models: list[Model] = []
    broken: list[Broken] = []
    for name in sorted(_folders(folder)):
        try:
            versions = sorted(_folders(name), key=_version_order)
        except OSError as error:
            broken.append(_broken(name, error))
            continue
        for path in versions:
            try:
                models.append(_read(path))
            except (OSError, ValueError) as error:
                broken.append(_broken(path, error))
    return models, broken


def _broken(path: Path, error: Exception) -> Broken:
    return Broken(path=Path(untrusted.printable(str(path))), reason=untrusted.sentence(error))


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


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _version_order(path: Path) -> tuple[bool, int, str]:
    number = int(path.name) if re.fullmatch(r"[0-9]{1,18}", path.name) else None
    return number is None, number or 0, path.name


def _read(path: Path) -> Model:
    """Raises ValueError with a sentence for whoever maintains the repository."""
    files = untrusted.names(path)
    if not re.fullmatch(NAME, path.name):
        raise ValueError("a version's name has letters, digits, '_', '.', '-', and at most 64 of them")
    file = _parse(path / MODEL_FILE) if MODEL_FILE in files else _plain(path, files)
    if file.name != path.parent.name:
        raise ValueError(f"name: {file.name!r} lies in a folder called {path.parent.name!r}")
    if file.engine == "generation":
        _check_folders(path, file, files)
    if file.engine == "batch":
        _check_graphs(file, files)
    return Model(folder=path, version=path.name, file=file, digest=_digest(path, files))


def _plain(path: Path, files: list[str]) -> ModelFile:
    """What a folder with one graph and no model.yaml says of itself."""
    graphs = [name for name in files if name.endswith(GRAPH_SUFFIX)]
    if len(graphs) != 1 or not GENERATION_FILES.isdisjoint(files):
        raise ValueError(f"{MODEL_FILE} is missing; only a folder with one graph for tensors does without it")
    if not re.fullmatch(NAME, path.parent.name):
        raise ValueError("a model's name has letters, digits, '_', '.', '-', and at most 64 of them")
    graph = GraphEntry(path=graphs[0])
    return ModelFile(name=path.parent.name, task="tensor", engine="batch", graphs={"cpu": graph, "cuda": graph})


def _parse(path: Path) -> ModelFile:
    try:
        return ModelFile.model_validate(untrusted.read_yaml(path))
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors())
        raise ValueError(f"{MODEL_FILE}: {'; '.join(problems)}") from None


def _check_graphs(file: ModelFile, files: list[str]) -> None:
    for device, entry in file.graphs.items():
        if PurePosixPath(entry.path).as_posix() not in files:
            raise ValueError(f"graphs.{device}: {entry.path} is missing")


def _check_folders(folder: Path, file: ModelFile, files: list[str]) -> None:
    for device, entry in file.graphs.items():
        base = PurePosixPath(entry.path)
        missing = [name for name in sorted(GENERATION_FILES) if (base / name).as_posix() not in files]
        if missing:
            raise ValueError(f"graphs.{device}: {missing[0]} is missing in {entry.path}")
        graph = (base / _graph_name(folder / base)).as_posix()
        if graph not in files:
            raise ValueError(f"graphs.{device}: {graph} is missing")


def _graph_name(folder: Path) -> str:
    try:
        return inside(untrusted.read_json(folder / "genai_config.json")["model"]["decoder"]["filename"])
    except (LookupError, TypeError):
        raise ValueError("genai_config.json does not name model.decoder.filename") from None


def _digest(folder: Path, files: list[str]) -> str:
    manifest = hashlib.sha256()
    for name in files:
        with (folder / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        manifest.update(f"{name}\0{(folder / name).stat().st_size}\0{content}\n".encode())
    return manifest.hexdigest()
