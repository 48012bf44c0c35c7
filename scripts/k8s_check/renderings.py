"""What the kustomizations say when they are put together."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

K8S = Path("deploy/k8s")
KUSTOMIZE_TIMEOUT_S = 60
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """`overlay`: it is to be applied as it is; else it is a component over the base."""

    name: str
    overlay: bool
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`where` names a rendering, and what in it."""

    where: str
    what: str


def label(document: Document) -> str:
    return f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"


def render_overlays(folder: Path = K8S) -> list[Rendering]:
    """Raises FileNotFoundError where there is no kubectl, ValueError with its words where something cannot be put
    together."""
    return [_render(path.name, path, overlay=True) for path in sorted((folder / "overlays").iterdir())]


def render_components(folder: Path = K8S) -> list[Rendering]:
    """Each over the base alone. Raises what `render_overlays` raises."""
    return [_render_alone(path) for path in sorted((folder / "components").iterdir())]


def _render(name: str, folder: Path, *, overlay: bool) -> Rendering:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise FileNotFoundError("kubectl is not installed")
    command = [kubectl, "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=KUSTOMIZE_TIMEOUT_S, check=False)
    if done.returncode:
        raise ValueError(f"{name}: {done.stderr.strip()}")
    documents = tuple(document for document in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if document)
    return Rendering(name=name, overlay=overlay, documents=documents)


def _render_alone(component: Path) -> Rendering:
    """Over the base, in its namespace."""
    folder = Path("build/k8s/alone") / component.name
    folder.mkdir(parents=True, exist_ok=True)
    outside = [os.path.relpath(path, folder) for path in (component.parent.parent / "base", component)]
    kustomization = {"namespace": "millrace", "resources": outside[:1], "components": outside[1:]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return _render(f"base + {component.name}", folder, overlay=False)


def write(renderings: Sequence[Rendering], folder: Path) -> None:
    """One file for each, where others' tools find them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for rendering in renderings:
        (folder / f"{rendering.name.replace(' + ', '-')}.yaml").write_text(yaml.safe_dump_all(rendering.documents))


def distinct(renderings: Sequence[Rendering]) -> Iterator[tuple[str, Document]]:
    """Each document once, with where it is first."""
    seen = set()
    for rendering in renderings:
        for document in rendering.documents:
            text = json.dumps(document, sort_keys=True)
            if text not in seen:
                seen.add(text)
                yield f"{rendering.name}: {label(document)}", document
