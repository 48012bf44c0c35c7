"""This project's own rules for its manifests, each with what it found."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scripts.k8s_check import alerts, pods, references, settings
from scripts.k8s_check.pods import Pod
from scripts.k8s_check.renderings import K8S, Problem, Rendering

OF_PODS: tuple[Callable[[Pod], Iterator[str]], ...] = (
    pods.restricted,
    pods.runs_as_its_image,
    pods.probes,
    pods.drains_in_time,
    pods.quiet_environment,
    pods.mounts,
    settings.known,
    settings.addresses,
    settings.mounted,
)
OF_PODS_OF_OVERLAYS: tuple[Callable[[Pod], Iterator[str]], ...] = (settings.secured, settings.models)
OF_RENDERINGS: tuple[Callable[[Rendering], Iterator[tuple[str, str]]], ...] = (
    references.selectors,
    references.ports,
    references.scale_targets,
    references.backends,
    references.scalers,
    references.sources,
    references.namespaces,
)


def check(renderings: Sequence[Rendering]) -> list[Problem]:
    of_renderings = [problem for rendering in renderings for problem in _check(rendering)]
    return [*of_renderings, *_undescribed(), *alerts.check()]


def _check(rendering: Rendering) -> Iterator[Problem]:
    for pod in pods.pods(rendering):
        for rule in (*OF_PODS, *(OF_PODS_OF_OVERLAYS if rendering.overlay else ())):
            yield from (Problem(where=f"{rendering.name}: {pod.name}", what=what) for what in rule(pod))
    for of_rendering in OF_RENDERINGS:
        for where, what in of_rendering(rendering):
            yield Problem(where=f"{rendering.name}: {where}", what=what)


def _undescribed(folder: Path = K8S) -> Iterator[Problem]:
    """A component or overlay that the docs do not name is found by nobody."""
    told = references.DOCS.read_text()
    for path in sorted([*(folder / "components").iterdir(), *(folder / "overlays").iterdir()]):
        if f"`{path.name}`" not in told:
            yield Problem(where=str(path), what=f"{references.DOCS} does not name it")
