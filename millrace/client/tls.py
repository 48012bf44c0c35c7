"""TLS to the frontends: how they are known, and how this client is known to them."""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

File = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files are PEM, and are read again when they change."""

    ca: File | None = None
    """Of these authorities one must have issued the frontends' certificates. Unset: those that OpenSSL trusts here, and
    where it has no such file those that gRPC brings along."""
    cert: File | None = None
    """What this client shows where it is asked who it is; it needs `key`."""
    key: File | None = None
    server_name: str = ""
    """The name in the frontends' certificates, where it is not the host of their address."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client's certificate and its key need each other: Tls(cert=…, key=…)")

    def state(self) -> tuple[object, ...]:
        """Equal as long as the files are."""
        return tuple(_state(file) for file in (self.ca, self.cert, self.key) if file is not None)

    def credentials(self) -> grpc.ChannelCredentials:
        """As the files are now. Raises ValueError with a sentence where they cannot be used."""
        try:
            self.context()
            return grpc.ssl_channel_credentials(_roots(self.ca), _read(self.key), _read(self.cert))
        except OSError as error:
            files = ", ".join(str(file) for file in (self.ca, self.cert, self.key) if file is not None)
            raise ValueError(f"TLS cannot use {error.filename or files}: {error.strerror or error}") from None

    def context(self) -> ssl.SSLContext:
        """The same for Python's own TLS. Raises OSError, of which ssl.SSLError is one."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key, password=b"")
        return context


def _state(file: File) -> object:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(file: File | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


def _roots(ca: File | None) -> bytes | None:
    """None: gRPC's own."""
    return _read(ca or ssl.get_default_verify_paths().cafile)
