"""What one frontend is told."""

import os
import secrets
import socket

from pydantic import Field

from millrace.settings import Settings


def _draw_id() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"


class FrontendSettings(Settings):
    """Read from the environment in `__main__`. Port 0 lets the system choose; the ready line tells."""

    grpc_address: str = Field(default="127.0.0.1:8001", description="where gRPC is served, HOST:PORT")
    http_address: str = Field(default="127.0.0.1:8002", description="where metrics and health are served, HOST:PORT")
    frontend_id: str = Field(
        default_factory=_draw_id, pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="names its mailbox"
    )
    queue_without_workers: bool = Field(default=True, description="queue for a known model that no worker serves now")
    slow_reader_s: float = Field(default=30.0, gt=0, description="a write that blocks longer ends its call")
    outage_s: float = Field(default=30.0, gt=0, description="running streams wait so long for a Redis that is away")
    drain_s: float = Field(default=20.0, ge=0, description="what running streams get before they are sent elsewhere")
    max_request_bytes: int = Field(default=4 << 20, ge=1, description="the largest request")
    max_tensor_bytes: int = Field(default=64 << 20, ge=1, description="the largest request that carries tensors")
    default_timeout_s: float = Field(default=600.0, gt=0, description="what a job may take where it does not say")
    max_timeout_s: float = Field(default=3_600.0, gt=0, description="the largest timeout that a job may ask for")
    max_resume_window_s: float = Field(default=600.0, ge=0, description="the largest resume window")
