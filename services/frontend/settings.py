"""What one frontend is told."""

import os
import secrets
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat
from pydantic_settings import NoDecode

from millrace.settings import Settings


def _parse_weights(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = (pair.partition("=") for pair in value.split(",") if pair)
    return {tenant.strip(): weight for tenant, _, weight in pairs}


def _parse_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_list)]
Weights = Annotated[dict[str, PositiveFloat], NoDecode, BeforeValidator(_parse_weights)]


def _draw_id() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"


class FrontendSettings(Settings):
    """Read from the environment in `__main__`. Port 0 lets the system choose; the ready line tells."""

    grpc_address: str = Field(default="127.0.0.1:8001", description="where gRPC is served, HOST:PORT")
    http_address: str = Field(
        default="127.0.0.1:8002", description="where metrics, health and OpenAI's HTTP API are served, HOST:PORT"
    )
    health_address: str = Field(
        default="",
        pattern=r"^(\S+:[0-9]{1,5})?$",
        description="where metrics and health are served instead, always in plaintext, HOST:PORT; empty: as above",
    )
    scaler_address: str = Field(
        default="",
        pattern=r"^(\S+:[0-9]{1,5})?$",
        description="where KEDA's external scaler and gRPC health are served, in plaintext, HOST:PORT; empty: nowhere",
    )
    tls_cert: Path | None = Field(
        default=None,
        description="the certificate chain of gRPC and HTTP, PEM, read again when it changes; unset: no TLS",
    )
    tls_key: Path | None = Field(default=None, description="its key, PEM")
    tls_client_ca: Path | None = Field(
        default=None, description="only callers with a certificate of these authorities are let in, PEM"
    )
    api_keys: Path | None = Field(
        default=None,
        description="the tenants and their keys' hashes, YAML (`millrace keys`), read again when it changes",
    )
    jwks: Path | None = Field(default=None, description="public keys of whoever issues JWTs, JSON, read again likewise")
    jwt_algorithm: Literal["RS256", "ES256", "EdDSA"] = Field(default="RS256", description="the only one that is taken")
    jwt_issuer: str = Field(default="", description="what a JWT's iss must be; empty: anything")
    jwt_audience: str = Field(default="millrace", description="what a JWT's aud must have")
    jwt_tenant_claim: str = Field(default="sub", description="which claim names the tenant")
    openai: bool = Field(default=False, description="whether OpenAI's HTTP API is served on the HTTP address")
    openai_cors_origins: Names = Field(
        default=(), description="web pages that may call OpenAI's HTTP API, as https://a.example,https://b.example"
    )
    openai_resume_window_s: float = Field(
        default=5.0, ge=0, description="how long OpenAI's streams, and named jobs, wait for a caller that is gone"
    )
    page: bool = Field(default=False, description="whether a page for people is served at / on the HTTP address")
    page_hosts: Names = Field(
        default=(), description="names that the page is served under, besides localhost and IP addresses: a.example,b"
    )
    frontend_id: str = Field(
        default_factory=_draw_id, pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="names its mailbox"
    )
    durability: Literal["fast", "replicated"] = Field(
        default="fast", description="replicated: nothing is answered before Redis' replicas have it"
    )
    replicas: int = Field(default=1, ge=1, description="how many replicas must have it")
    scale_from_zero_s: float = Field(
        default=0.0, ge=0, description="how long jobs may wait for a model's first worker; 0: refused without one"
    )
    tenant_weights: Weights = Field(default={}, description="tenants' shares, as a=2,b=0.5; others have 1")
    slow_reader_s: float = Field(default=25.0, gt=0, description="a write that blocks longer ends its call")
    outage_s: float = Field(default=30.0, gt=0, description="running streams wait so long for a Redis that is away")
    drain_s: float = Field(default=20.0, ge=0, description="what running streams get before they are sent elsewhere")
    max_request_bytes: int = Field(default=4 << 20, ge=1, description="the largest request")
    max_tensor_bytes: int = Field(default=64 << 20, ge=1, description="the largest request that carries tensors")
    default_timeout_s: float = Field(default=600.0, gt=0, description="what a job may take where it does not say")
    max_timeout_s: float = Field(default=3_600.0, gt=0, description="the largest timeout that a job may ask for")
    model_control: bool = Field(default=True, description="whether callers may load and unload models")
    response_cache_bytes: int = Field(
        default=0, ge=0, description="answers kept for equal requests, of models that allow it; 0: none"
    )
    max_resume_window_s: float = Field(default=600.0, ge=0, description="the largest resume window")
