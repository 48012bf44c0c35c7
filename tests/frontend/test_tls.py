"""TLS of the frontend's ports, over real sockets: who is let in, what is shown, and what changes while it serves."""

import asyncio
import socket
import ssl
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest  # type: ignore[import-untyped]
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]
from structlog.testing import capture_logs

from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from services.frontend import tls
from services.frontend.server import Frontend
from services.frontend.tls import Certificates, open_certificates
from tests.certificates import Authority, Pair
from tests.eventually import eventually
from tests.frontend.playing import Worker, frontend, request, texts

REQUEST = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
REFUSED = (ConnectionError, ssl.SSLError)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


@pytest.fixture
def pair(ours: Authority) -> Pair:
    return ours.issue("server", "localhost", "127.0.0.1")


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "LOOK_S", 0.02)


def trusting(authority: Authority, shows: Pair | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """What a caller has who trusts the authority, and shows a certificate, and speaks one version of TLS."""
    context = ssl.create_default_context(cafile=authority.ca)
    context.set_alpn_protocols(["h2"])
    if shows is not None:
        context.load_cert_chain(shows.cert, shows.key)
    if version is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    return context


async def shown(address: str, context: ssl.SSLContext, sends: bytes = b"", name: str = "localhost") -> str:
    """Who issued the certificate of whoever serves there; raises ConnectionError where the caller is let down."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
    try:
        writer.write(sends)
        if not await reader.read(1):
            raise ConnectionError("closed without a word")
        issuer: tuple[tuple[tuple[str, str], ...], ...] = writer.get_extra_info("peercert")["issuer"]
        return issuer[0][0][1]
    finally:
        writer.transport.abort()


async def both(served: Frontend, context: ssl.SSLContext) -> list[str]:
    """`shown` of gRPC and of HTTP."""
    return [await shown(served.grpc_address, context), await shown(served.http_address, context, REQUEST)]


async def is_refused(served: Frontend, context: ssl.SSLContext, name: str = "localhost") -> bool:
    """By both."""
    for address, sends in ((served.grpc_address, b""), (served.http_address, REQUEST)):
        with pytest.raises(REFUSED):
            await shown(address, context, sends, name)
    return True


def credentials(authority: Authority) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(authority.ca.read_bytes())


async def test_grpc_and_http_show_the_certificate(redis_url: str, ours: Authority, pair: Pair) -> None:
    async with (
        frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key) as served,
        grpc.aio.secure_channel(served.grpc_address, credentials(ours)) as channel,
    ):
        assert (await HealthStub(channel).Check(HealthCheckRequest())).status == 1
        assert await both(served, trusting(ours)) == ["ours", "ours"]
        assert await both(served, trusting(ours, version=ssl.TLSVersion.TLSv1_2)) == ["ours", "ours"]


async def test_a_caller_who_cannot_trust_the_certificate_gets_nothing(
    redis_url: str, ours: Authority, theirs: Authority, pair: Pair
) -> None:
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key) as served:
        assert await is_refused(served, trusting(theirs))
        assert await is_refused(served, trusting(ours), name="elsewhere.example")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_1_1_is_refused(redis_url: str, ours: Authority, pair: Pair) -> None:
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key) as served:
        assert await is_refused(served, trusting(ours, version=ssl.TLSVersion.TLSv1_1))


async def test_plaintext_is_refused_where_tls_is_spoken(redis_url: str, pair: Pair) -> None:
    async with (
        frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="Socket closed"):
            await HealthStub(channel).Check(HealthCheckRequest())
        reader, writer = await asyncio.open_connection(*served.http_address.split(":"))
        writer.write(REQUEST)
        assert not (await reader.read()).startswith(b"HTTP")
        writer.close()


async def test_only_callers_with_a_certificate_of_the_authority_are_let_in(
    redis_url: str, ours: Authority, theirs: Authority, pair: Pair
) -> None:
    caller, stranger = ours.issue("caller"), theirs.issue("stranger")
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=ours.ca) as served:
        assert await both(served, trusting(ours, caller)) == ["ours", "ours"]
        assert await is_refused(served, trusting(ours))
        assert await is_refused(served, trusting(ours, stranger))
        assert await is_refused(served, trusting(ours, ours.issue("late", lasts=-timedelta(hours=1))))


async def test_a_new_certificate_is_shown_to_new_connections_while_a_stream_goes_on(
    redis_url: str, worker: Worker, ours: Authority, theirs: Authority, pair: Pair
) -> None:
    async with (
        frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key) as served,
        grpc.aio.secure_channel(served.grpc_address, credentials(ours)) as channel,
    ):
        call = TextGenerationServiceStub(channel).Generate(request())
        held = await worker.take()
        await held.emit("before")
        first = await call.read()
        theirs.issue("server", "localhost", "127.0.0.1")

        async def renewed() -> bool:
            try:
                return await both(served, trusting(theirs)) == ["theirs", "theirs"]
            except ssl.SSLCertVerificationError:
                return False

        await eventually(renewed)
        await held.emit("after", last=True)
        assert texts([first, await call.read()]) == ["before", "after"]  # type: ignore[list-item]
        assert await is_refused(served, trusting(ours))


async def test_callers_of_an_authority_that_is_trusted_no_more_get_no_new_connection(
    redis_url: str, ours: Authority, theirs: Authority, pair: Pair, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(ours.ca.read_bytes())
    old, new = trusting(ours, ours.issue("old")), trusting(ours, theirs.issue("new"))
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=trusted) as served:
        assert await both(served, old) == ["ours", "ours"]
        trusted.write_bytes(theirs.ca.read_bytes())

        async def rotated() -> bool:
            try:
                return await both(served, new) == ["ours", "ours"]
            except REFUSED:
                return False

        await eventually(rotated)
        assert await is_refused(served, old)


def resumes(address: str, context: ssl.SSLContext) -> bool:
    """Whether a second connection may go on with the session of a first."""
    session = None
    host, _, port = address.rpartition(":")
    for _ in range(2):
        with (
            socket.create_connection((host, int(port))) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=session) as secured,
        ):
            secured.sendall(REQUEST)
            secured.recv(1)
            session = secured.session
            resumed = secured.session_reused
    return bool(resumed)


async def test_sessions_are_not_resumed_where_callers_show_certificates(
    redis_url: str, ours: Authority, pair: Pair
) -> None:
    """A session that was resumed would outlive the trust in its caller's authority."""
    context = trusting(ours, ours.issue("caller"))
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key) as served:
        assert await asyncio.to_thread(resumes, served.http_address, context)
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=ours.ca) as served:
        assert not await asyncio.to_thread(resumes, served.http_address, context)


async def test_health_and_metrics_are_in_plaintext_on_their_own_port_alone(
    redis_url: str, ours: Authority, pair: Pair
) -> None:
    settings = {"tls_cert": pair.cert, "tls_key": pair.key, "health_address": "127.0.0.1:0"}
    async with frontend(redis_url, **settings) as served:
        for path, status in (("/healthz", b"200"), ("/readyz", b"200"), ("/metrics", b"200"), ("/v1/models", b"404")):
            assert (await get(served.health_address, path)).split()[1] == status
        assert b"404" in await get(served.http_address, "/metrics", trusting(ours))
        metrics = await get(served.health_address, "/metrics")
        lines = dict(line.rsplit(b" ", 1) for line in metrics.splitlines() if b" " in line)
        left_s = float(lines[b"millrace_tls_certificate_expiry_seconds"])
        assert left_s == pytest.approx(timedelta(days=365).total_seconds(), abs=60)


async def get(address: str, path: str, context: ssl.SSLContext | None = None) -> bytes:
    """The whole answer."""
    host, _, port = address.rpartition(":")
    name = "localhost" if context else None
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


def test_a_pair_that_is_half_written_is_not_taken(ours: Authority, pair: Pair) -> None:
    held = Certificates(pair.cert, pair.key)
    key = pair.key.read_bytes()
    before = held.expires_in_s()
    ours.issue("server", "localhost", lasts=timedelta(days=30))
    after = pair.key.read_bytes()
    pair.key.write_bytes(key)
    with capture_logs() as logs:
        held.look()
        pair.key.write_bytes(after)
        held.look()
        assert held.expires_in_s() == pytest.approx(before, abs=60)
        held.look()
    assert held.expires_in_s() == pytest.approx(timedelta(days=30).total_seconds(), abs=60)
    assert [line["event"] for line in logs] == ["tls.reloaded"]


@pytest.mark.parametrize("broken", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None])
def test_a_broken_file_keeps_the_old_certificate_and_is_told_once(
    ours: Authority, pair: Pair, broken: str | None
) -> None:
    held = Certificates(pair.cert, pair.key)
    if broken is None:
        pair.cert.unlink()
    else:
        pair.cert.write_text(broken)
    with capture_logs() as logs:
        for _ in range(5):
            held.look()
        assert held.expires_in_s() > 0
        ours.issue("server", "localhost", lasts=timedelta(days=30))
        held.look()
        held.look()
    assert [line["event"] for line in logs] == ["tls.kept_the_old", "tls.reloaded"]
    assert str(pair.cert) in logs[0]["error"]
    assert held.expires_in_s() == pytest.approx(timedelta(days=30).total_seconds(), abs=60)


@pytest.mark.parametrize(
    ("lasts", "said"),
    [(timedelta(hours=-1), "tls.expired"), (timedelta(days=6), "tls.expires_soon"), (timedelta(days=8), "")],
)
def test_a_certificate_that_expires_is_warned_of_once(ours: Authority, lasts: timedelta, said: str) -> None:
    pair = ours.issue("server", "localhost", lasts=lasts)
    with capture_logs() as logs:
        held = Certificates(pair.cert, pair.key)
        held.look()
    assert [line["event"] for line in logs] == ([said] if said else [])
    assert (held.expires_in_s() < 0) == (said == "tls.expired")


async def test_files_that_cannot_be_used_are_refused_at_start(ours: Authority, pair: Pair, tmp_path: Path) -> None:
    other, no_file, no_pem = ours.issue("other"), tmp_path / "none.crt", tmp_path / "notes.txt"
    no_pem.write_text("no certificate\n")
    for files, sentence in (
        ((no_file, pair.key, None), r"none\.crt: No such file"),
        ((pair.cert, other.key, None), r"other\.key: not the key of the certificate in .*server\.crt"),
        ((no_pem, pair.key, None), r"notes\.txt: holds no certificate"),
        ((pair.cert, no_pem, None), r"notes\.txt: not a private key"),
        ((pair.cert, pair.key, no_pem), r"notes\.txt: holds no certificate"),
        ((pair.cert, None, None), "tls_cert and tls_key need each other"),
        ((None, pair.key, None), "tls_cert and tls_key need each other"),
        ((None, None, ours.ca), "tls_client_ca needs tls_cert and tls_key"),
    ):
        with pytest.raises(ValueError, match=sentence):
            await open_certificates(*files)
    assert await open_certificates(None, None, None) is None
