"""What one worker is told."""

import os
import secrets
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field

from millrace.settings import Settings
from services.worker.repository.urls import redacted


def _draw_id() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"


class WorkerSettings(Settings):
    """Read from the environment in `__main__`."""

    models: str = Field(
        default="models", description="the model repository, NAME/VERSION/model.yaml: a folder, or a URL of fsspec's"
    )
    model_cache: Path = Field(
        default=Path("~/.cache/millrace/models"), description="where the models of a remote repository are copied to"
    )
    repository: str = Field(
        default="models",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="what commands call the repository; the same for all workers that serve the same one",
    )
    load: str = Field(
        default="*",
        description="names or patterns, as a,b-*: what is served where no command says otherwise; empty: nothing",
    )
    poll_s: float = Field(
        default=0.0, ge=0, description="how often the repository is read again; 0: only when a command says so"
    )
    memory_bytes: int = Field(default=0, ge=0, description="what all models may have together; 0: no limit")
    operator_domains: str = Field(
        default="", description="of graphs' operators, as a,b: those that are let in beside ONNX Runtime's own"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes a GPU where there is one")
    threads: int = Field(default=0, ge=0, description="intra-operator threads; 0 lets the runtime choose")
    worker_id: str = Field(
        default_factory=_draw_id, pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="names this process in the fleet"
    )
    http_address: str = Field(
        default="",
        pattern=r"^(\S+:[0-9]{1,5})?$",
        description="where metrics and health are served, HOST:PORT; empty: nowhere; port 0 lets the system choose",
    )
    drain_s: float = Field(default=5.0, ge=0, description="what running jobs get before they are handed back")
    unload_s: float = Field(
        default=30.0,
        ge=0,
        description="what running jobs get before newer files of their model, or other workers, go on",
    )
    stall_s: float = Field(default=60.0, gt=0, description="a step longer than this ends the process: the device hangs")

    def redacted(self) -> dict[str, object]:
        return super().redacted() | {"models": redacted(self.models)}


def names(written: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(name.strip() for name in written.split(",") if name.strip())
