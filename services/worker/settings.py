"""What one worker is told."""

import os
import secrets
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field

from millrace.settings import Settings


def _draw_id() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"


class WorkerSettings(Settings):
    """Read from the environment in `__main__`."""

    models: Path = Field(default=Path("models"), description="the model repository: NAME/VERSION/model.yaml")
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
    stall_s: float = Field(default=60.0, gt=0, description="a step longer than this ends the process: the device hangs")
