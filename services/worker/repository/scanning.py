"""The model repository: NAME/VERSION/model.yaml, and beside it whatever the model's engine reads.

    pycode/model.yaml          which versions are served: see `versions`
    pycode/1/model.yaml        name: pycode, task: text-generation, engine: generation, …
    pycode/1/model.onnx        …
    pycode/1/SHA256SUMS        what the files must be: see `manifest`
    plain/1/anything.onnx      no model.yaml: the graph as it is, tensors in and out

A version is served only if all of its files are in order. Nothing here follows a link or leaves the repository.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from services.worker import untrusted
from services.worker.repository import graph_files, manifest, versions, warmup
from services.worker.repository.model import Broken, Model
from services.worker.repository.model_file import NAME, GraphEntry, ModelFile, problems

MODEL_FILE = "model.yaml"
GRAPH_SUFFIX = ".onnx"
WRONG_NAME = "name has letters, digits, '_', '.', '-', and at most 64 of them"
Known = Mapping[Path, Model | Broken]


def scan(
    folder: Path, *, domains: Collection[str] = (), known: Iterable[Model | Broken] = ()
) -> tuple[list[Model], list[Broken]]:
    """All versions under `folder`: models by name, then versions, numbers before other names and in their order. Those
    that their model's policy has served are `chosen`.

    `domains`: of operators, beside those that come with ONNX Runtime. `known`: what an earlier scan answered; a version
    that the file system has not seen change since is not read again. Raises FileNotFoundError where there is no such
    folder."""
    seen = {one.folder if isinstance(one, Model) else one.path: one for one in known if one.stamp}
    models: list[Model] = []
    broken: list[Broken] = []
    for name in sorted(_folders(folder)):
        try:
            paths = sorted(_folders(name), key=lambda path: versions.order(path.name))
        except OSError as error:
            broken.append(_broken(name, error))
            continue
        read, refused = _scan_versions(name, paths, domains, seen)
        models += read
        broken += refused
    return models, broken


def _scan_versions(
    name: Path, paths: list[Path], domains: Collection[str], seen: Known
) -> tuple[list[Model], list[Broken]]:
    try:
        policy = versions.read_policy(name)
    except (OSError, ValueError) as error:
        return [], [_broken(path, error) for path in paths]
    found = [_scan_version(path, domains, seen) for path in paths]
    models = [one for one in found if isinstance(one, Model)]
    broken = [one for one in found if isinstance(one, Broken)]
    chosen = {model.version for model in versions.select(models, policy)}
    missing = [name / version for version in policy.specific or () if name / version not in paths]
    broken += [_broken(path, ValueError(f"{name.name}/model.yaml names it, and it is missing")) for path in missing]
    return [replace(model, chosen=model.version in chosen) for model in models], broken


def _scan_version(path: Path, domains: Collection[str], seen: Known) -> Model | Broken:
    stamp = ""
    try:
        files = untrusted.files(path)
        stamp = _stamp(files)
        before = seen.get(path)
        if before is not None and before.stamp == stamp:
            return before
        return _read(path, files, stamp, domains)
    except (OSError, ValueError) as error:
        return _broken(path, error, stamp)


def _broken(path: Path, error: Exception, stamp: str = "") -> Broken:
    return Broken(path=Path(untrusted.printable(str(path))), reason=untrusted.sentence(error), stamp=stamp)


def _stamp(files: Mapping[str, os.stat_result]) -> str:
    whole = hashlib.sha256()
    for name, status in files.items():
        seen = (name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
        whole.update(f"{seen}\n".encode(errors="backslashreplace"))
    return whole.hexdigest()


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _read(path: Path, files: Mapping[str, os.stat_result], stamp: str, domains: Collection[str]) -> Model:
    """Raises ValueError with a sentence for whoever maintains the repository."""
    if not re.fullmatch(NAME, path.name):
        raise ValueError(f"a version's {WRONG_NAME}")
    file = _parse(path / MODEL_FILE) if MODEL_FILE in files else _plain(path, files)
    if file.name != path.parent.name:
        raise ValueError(f"name: {file.name!r} lies in a folder called {path.parent.name!r}")
    sizes = {name: status.st_size for name, status in files.items()}
    for graph in dict.fromkeys(graph_files.paths(path, file, files).values()):
        graph_files.check(path, graph, sizes, domains)
    for output, name in file.labels.items():
        if name not in files:
            raise ValueError(f"labels.{output}: {name} is missing")
    warmup.requests(file, path.name)
    wanted = manifest.read_manifest(path) if manifest.MANIFEST_FILE in files else None
    sums = manifest.read_sums(path, files)
    if wanted is not None:
        manifest.check(wanted, sums)
    return Model(folder=path, version=path.name, file=file, digest=manifest.digest(sums, sizes), stamp=stamp)


def _plain(path: Path, files: Collection[str]) -> ModelFile:
    """What a folder with one graph and no model.yaml says of itself."""
    graphs = [name for name in files if name.endswith(GRAPH_SUFFIX)]
    if len(graphs) != 1 or not set(graph_files.GENERATION_FILES).isdisjoint(files):
        raise ValueError(f"{MODEL_FILE} is missing; only a folder with one graph for tensors does without it")
    if not re.fullmatch(NAME, path.parent.name):
        raise ValueError(f"a model's {WRONG_NAME}")
    graph = GraphEntry(path=graphs[0])
    return ModelFile(name=path.parent.name, task="tensor", engine="batch", graphs={"cpu": graph, "cuda": graph})


def _parse(path: Path) -> ModelFile:
    try:
        return ModelFile.model_validate(untrusted.read_yaml(path))
    except ValidationError as error:
        raise ValueError(f"{MODEL_FILE}: {problems(error)}") from None
