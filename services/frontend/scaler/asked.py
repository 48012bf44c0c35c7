"""What a ScaledObject asks for: its trigger's metadata, checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from millrace.errors import InvalidRequest, Violation
from millrace.keda.externalscaler_pb2 import ScaledObjectRef
from millrace.queue import ModelVersion

TARGET_WAIT_S = 5.0
MODEL, WAIT, JOBS, BUSY = "model", "targetWaitSeconds", "targetJobsPerWorker", "keepBusyWorkers"
OURS = (MODEL, WAIT, JOBS, BUSY)
KEDAS = {"scalerAddress", "enableTLS", "unsafeSsl", "caCert", "tlsClientCert", "tlsClientKey", "tlsCertFile"}
"""What KEDA itself reads of the metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The models that a fleet of workers serves, and how well it is to serve them."""

    models: tuple[tuple[str, str], ...]
    """Names and versions; no version: all of them."""
    target_wait_s: float = TARGET_WAIT_S
    jobs_per_worker: float | None = None
    """None: what the workers say."""
    keep_busy: bool = True
    """Whether a worker that holds a job is kept, though fewer could hold all of them."""

    def names(self, model: ModelVersion) -> bool:
        return (model.name, model.version) in self.models or (model.name, "") in self.models

    def __str__(self) -> str:
        return ", ".join(f"{name}/{version}" if version else name for name, version in self.models)


def parse(reference: ScaledObjectRef) -> Asked:
    """Raises InvalidRequest, which names what is wrong in the metadata."""
    metadata = reference.scalerMetadata
    violations: list[Violation] = [
        Violation(_path(name), f"is none of {', '.join(OURS)}") for name in sorted(metadata.keys() - KEDAS - {*OURS})
    ]
    asked = Asked(
        models=_models(metadata, violations),
        target_wait_s=_positive(metadata, WAIT, violations) or TARGET_WAIT_S,
        jobs_per_worker=_positive(metadata, JOBS, violations),
        keep_busy=_true(metadata, BUSY, violations),
    )
    if violations:
        raise InvalidRequest(violations)
    return asked


def _models(metadata: Mapping[str, str], violations: list[Violation]) -> tuple[tuple[str, str], ...]:
    names = [name.strip() for name in metadata.get(MODEL, "").split(",")]
    parts = [name.partition("/") for name in names]
    if not all(name and (version or not slash) for name, slash, version in parts):
        violations.append(Violation(_path(MODEL), "must be NAME or NAME/VERSION, several by comma"))
    return tuple((name, version) for name, _, version in parts)


def _positive(metadata: Mapping[str, str], name: str, violations: list[Violation]) -> float | None:
    """None where nothing is said, or nothing that can be."""
    if name not in metadata:
        return None
    try:
        value = float(metadata[name])
    except ValueError:
        value = math.nan
    if 0 < value < math.inf:
        return value
    violations.append(Violation(_path(name), "must be a number above 0"))
    return None


def _true(metadata: Mapping[str, str], name: str, violations: list[Violation]) -> bool:
    """Where nothing is said, too."""
    value = metadata.get(name, "true")
    if value not in ("true", "false"):
        violations.append(Violation(_path(name), "must be true or false"))
    return value == "true"


def _path(name: str) -> str:
    return f"scalerMetadata[{name}]"
