"""The frontend's certificate, and the authorities of its callers', read again when their files change.

    files → PEM (bytes) → Held (checked) → each new connection's handshake

Connections that exist keep what they were opened with. gRPC asks for its credentials at each handshake; HTTP's live
context hands each handshake on to the newest one, since a context can be given a new certificate but cannot forget an
authority.
"""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog

if TYPE_CHECKING:
    from cryptography import x509

LOOK_S = 1.0
EXPIRES_SOON = timedelta(days=7)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pem:
    """What the files hold."""

    chain: bytes
    key: bytes
    client_ca: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A certificate that fits its key, for both protocols. `expires`: the first of the chain that does."""

    expires: datetime
    grpc: grpc.ServerCertificateConfiguration
    http: ssl.SSLContext


class Certificates:
    """Reads its files when it is made; ValueError says what is wrong with them. `run` looks for newer ones."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._last: Pem | str = self._read()
        self._tried = self._last
        self._held = self._make(self._last)
        self._warned = ""
        self._warn()

    def expires_in_s(self) -> float:
        """Negative where it has expired."""
        return (self._held.expires - datetime.now(UTC)).total_seconds()

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For one port."""
        given = self._held

        def newer() -> grpc.ServerCertificateConfiguration | None:
            """Called in gRPC's threads, at each handshake; None: as before."""
            nonlocal given
            if self._held is given:
                return None
            given = self._held
            return given.grpc

        verified = self._client_ca is not None
        return grpc.dynamic_ssl_server_credentials(given.grpc, newer, verified)  # type: ignore[arg-type]

    def http_context(self) -> ssl.SSLContext:
        """For one port. No session is resumed: it would go on under an authority that is trusted no more."""

        def hand_on(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = self._held.http

        self._held.http.sni_callback = hand_on
        return self._held.http

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Takes what the files hold if it has stood there since the last look: a pair that is half-written is none.
        What is wrong is said once, and what was held before stays."""
        found = self._read()
        if found == self._last and found != self._tried:
            self._tried = found
            try:
                self._held = self._make(found)
            except ValueError as error:
                log.error("tls.kept_the_old", error=str(error))
            else:
                log.info("tls.reloaded", cert=str(self._cert), expires=self._held.expires.isoformat())
        self._last = found
        self._warn()

    def _warn(self) -> None:
        """Once for each state that the certificate comes into."""
        left = self._held.expires - datetime.now(UTC)
        state = "expired" if left < timedelta() else "expires_soon" if left < EXPIRES_SOON else ""
        if state not in ("", self._warned):
            log.warning(f"tls.{state}", cert=str(self._cert), expires=self._held.expires.isoformat())
        self._warned = state

    def _read(self) -> Pem | str:
        """Or why they cannot be read."""
        try:
            return Pem(
                chain=self._cert.read_bytes(),
                key=self._key.read_bytes(),
                client_ca=self._client_ca.read_bytes() if self._client_ca else None,
            )
        except OSError as error:
            return f"{error.filename}: {error.strerror}"

    def _make(self, found: Pem | str) -> Held:
        if isinstance(found, str):
            raise ValueError(found)
        chain = _parse(found.chain, self._cert)
        self._check_key(found.key, chain[0])
        if found.client_ca is not None and self._client_ca is not None:
            _parse(found.client_ca, self._client_ca)
        return Held(
            expires=min(certificate.not_valid_after_utc for certificate in chain),
            grpc=grpc.ssl_server_certificate_configuration([(found.key, found.chain)], found.client_ca),
            http=self._make_context(found.client_ca),
        )

    def _check_key(self, pem: bytes, certificate: "x509.Certificate") -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self._key}: not a private key in PEM without a password: {error}") from None
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
            raise ValueError(f"{self._key}: not the key of the certificate in {self._cert}")

    def _make_context(self, client_ca: bytes | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._cert, self._key, password=b"")
        except (ssl.SSLError, OSError) as error:
            raise ValueError(f"{self._cert}: {error}") from None
        if client_ca is not None:
            # TLS 1.2 cannot be kept from resuming sessions.
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.num_tickets = 0
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=client_ca.decode("ascii", "ignore"))
        return context


async def open_certificates(cert: Path | None, key: Path | None, client_ca: Path | None) -> Certificates | None:
    """None where there is to be no TLS. Raises ValueError where the files do not do."""
    if cert is None and key is None:
        if client_ca is not None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key: callers show certificates by TLS only")
        return None
    if cert is None or key is None:
        raise ValueError("tls_cert and tls_key need each other")
    return await asyncio.to_thread(Certificates, cert, key, client_ca)


def _parse(pem: bytes, path: Path) -> "list[x509.Certificate]":
    """At least one."""
    from cryptography import x509  # 18 MB, which a frontend without TLS goes without

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ValueError(f"{path}: holds no certificate in PEM: {error}") from None
