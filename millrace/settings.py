"""What every process of a deployment is told in the same way: environment variables that begin with `MILLRACE_`.

Each process extends `Settings` with its own few; they are read once, at its start, where flags of the same names win,
and printed redacted.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from millrace.queue import Limits
from millrace.queue.connection import Server


class Settings(BaseSettings):
    """Defaults run on a laptop."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_", frozen=True)

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="the Redis or Valkey that holds the queue: redis://, rediss:// (TLS), unix://, "
        "redis+sentinel://HOST:PORT[,…]/NAME, redis+cluster://HOST:PORT[,…]; TLS too with rediss+…",
    )
    redis_password_file: Path | None = Field(
        default=None, description="a file with Redis' password, for the URL's user"
    )
    redis_ca: Path | None = Field(
        default=None, description="certificates that Redis' is checked by; unset: the system's"
    )
    redis_cert: Path | None = Field(default=None, description="the certificate that is shown to Redis, PEM")
    redis_key: Path | None = Field(default=None, description="its key, PEM")
    security: Literal["off", "required"] = Field(
        default="off", description="required: refuses to start where a caller, or Redis, could be anybody"
    )
    lease_ms: int = Field(default=3_000, ge=200, description="how long a worker holds a job without renewing it")
    interest_ms: int = Field(default=3_000, ge=200, description="how long a frontend's interest lasts unrenewed")
    retention_ms: int = Field(default=600_000, ge=0, description="how long results stay after a job's end")
    linger_ms: int = Field(
        default=30_000, ge=0, description="the same for results that nobody can come back for, where none took them"
    )
    max_waiting_jobs: int = Field(default=10_000, ge=1, description="jobs that may wait for one model")
    max_tenant_jobs: int = Field(default=5_000, ge=1, description="jobs of one tenant that may wait for one model")
    log_format: Literal["console", "json"] = Field(default="console", description="for people, or for machines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least that is said"
    )
    log_prompts: bool = Field(default=False, description="whether events hold what was asked, too")
    otlp_endpoint: str = Field(
        default="", description="where traces are sent by OTLP over gRPC, http://HOST:PORT; empty: none are made"
    )
    trace_ratio: float = Field(
        default=0.01, ge=0, le=1, description="of requests whose caller does not say: how many are traced"
    )

    def limits(self) -> Limits:
        return Limits(
            lease_ms=self.lease_ms,
            interest_ms=self.interest_ms,
            retention_ms=self.retention_ms,
            linger_ms=self.linger_ms,
            max_waiting_jobs=self.max_waiting_jobs,
            max_tenant_jobs=self.max_tenant_jobs,
        )

    def redis_server(self) -> Server:
        """Raises ValueError where the URL or the files cannot be used."""
        server = self._server()
        server.check()
        return server

    def redacted(self) -> dict[str, object]:
        """All settings, with passwords in URLs blotted out, for the log."""
        return self.model_dump() | {"redis_url": self._server().describe()}

    def _server(self) -> Server:
        return Server(
            url=self.redis_url,
            password_file=self.redis_password_file,
            ca=self.redis_ca,
            cert=self.redis_cert,
            key=self.redis_key,
        )
