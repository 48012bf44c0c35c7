"""The client's side of TLS: whom it trusts, what it shows, what it says where that does not fit, what it reloads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import millrace
from millrace import Tls, Unavailable
from millrace.client import frontends
from services.frontend import tls as certificates
from services.frontend.server import Frontend
from tests.certificates import Authority, Pair
from tests.eventually import eventually
from tests.frontend.playing import Worker, frontend


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


@pytest.fixture
def pair(ours: Authority) -> Pair:
    return ours.issue("server", "localhost", "127.0.0.1")


@pytest.fixture
async def served(redis_url: str, pair: Pair) -> AsyncIterator[Frontend]:
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key) as running:
        yield running


@pytest.fixture
async def choosy(redis_url: str, ours: Authority, pair: Pair) -> AsyncIterator[Frontend]:
    """It lets in only callers of our own authority."""
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=ours.ca) as running:
        yield running


async def refusal(address: str, tls: Tls | bool) -> Unavailable:
    """What the client says at once, though it has half a minute."""
    async with asyncio.timeout(5), millrace.AsyncClient(address, tls=tls) as client:
        with pytest.raises(Unavailable) as refused:
            await client.models()
    return refused.value


async def test_a_client_that_trusts_the_authority_is_served(served: Frontend, ours: Authority) -> None:
    async with millrace.AsyncClient(served.grpc_address, tls=Tls(ca=ours.ca)) as client:
        assert await client.models() == []


async def test_the_synchronous_client_speaks_tls_too(served: Frontend, ours: Authority) -> None:
    def ask() -> list[Any]:
        with millrace.Client(served.grpc_address, tls=Tls(ca=str(ours.ca))) as client:
            return client.models()

    assert await asyncio.to_thread(ask) == []


async def test_a_client_shows_its_certificate(choosy: Frontend, ours: Authority) -> None:
    mine = ours.issue("caller")
    async with millrace.AsyncClient(choosy.grpc_address, tls=Tls(ca=ours.ca, cert=mine.cert, key=mine.key)) as client:
        assert await client.models() == []


async def test_a_name_that_is_not_the_address_may_be_expected(redis_url: str, ours: Authority) -> None:
    pair = ours.issue("inner", "millrace.internal")
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key) as served:
        named = Tls(ca=ours.ca, server_name="millrace.internal")
        async with millrace.AsyncClient(served.grpc_address, tls=named) as client:
            assert await client.models() == []
        refused = await refusal(served.grpc_address, Tls(ca=ours.ca))
        assert (refused.reason, "127.0.0.1" in refused.message) == ("CERTIFICATE_NAME", True)


async def test_a_client_without_tls_is_told_that_it_is_spoken(served: Frontend) -> None:
    refused = await refusal(served.grpc_address, tls=False)
    assert refused.reason == "TLS_SPOKEN"
    assert refused.message == f"{served.grpc_address} speaks TLS, and this client does not"


async def test_a_client_with_tls_is_told_that_it_is_not_spoken(redis_url: str, ours: Authority) -> None:
    async with frontend(redis_url) as served:
        assert (await refusal(served.grpc_address, Tls(ca=ours.ca))).reason == "TLS_UNSPOKEN"


async def test_an_unknown_authority_is_told(served: Frontend, theirs: Authority) -> None:
    assert (await refusal(served.grpc_address, Tls(ca=theirs.ca))).reason == "CERTIFICATE_UNTRUSTED"
    assert (await refusal(served.grpc_address, tls=True)).reason == "CERTIFICATE_UNTRUSTED"


async def test_an_expired_certificate_is_told(redis_url: str, ours: Authority) -> None:
    pair = ours.issue("late", "127.0.0.1", lasts=-timedelta(hours=1))
    async with frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key) as served:
        refused = await refusal(served.grpc_address, Tls(ca=ours.ca))
    assert refused.reason == "CERTIFICATE_EXPIRED"


async def test_a_certificate_that_is_asked_for_or_not_taken_is_told(
    choosy: Frontend, ours: Authority, theirs: Authority
) -> None:
    refused = await refusal(choosy.grpc_address, Tls(ca=ours.ca))
    assert refused.message == f"{choosy.grpc_address} asks this client for a certificate"
    foreign = theirs.issue("stranger")
    refused = await refusal(choosy.grpc_address, Tls(ca=ours.ca, cert=foreign.cert, key=foreign.key))
    assert refused.message == f"{choosy.grpc_address} does not take this client's certificate"


async def test_what_speaks_tls_but_no_grpc_is_told(served: Frontend, ours: Authority) -> None:
    assert (await refusal(served.http_address, Tls(ca=ours.ca))).reason == "NOT_GRPC"


async def test_a_frontend_that_fits_is_found_beside_one_that_does_not(
    redis_url: str, served: Frontend, ours: Authority
) -> None:
    async with (
        frontend(redis_url) as plain,
        millrace.AsyncClient(plain.grpc_address, served.grpc_address, tls=Tls(ca=ours.ca)) as client,
    ):
        for _ in range(4):
            assert await client.models() == []


async def test_new_files_are_used_by_new_calls_while_an_old_one_goes_on(
    redis_url: str,
    worker: Worker,
    ours: Authority,
    theirs: Authority,
    pair: Pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frontends, "LOOK_S", 0.01)
    monkeypatch.setattr(certificates, "LOOK_S", 0.01)
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(ours.ca.read_bytes())
    mine = ours.issue("caller")
    async with (
        frontend(redis_url, tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=trusted) as served,
        millrace.AsyncClient(
            served.grpc_address, tls=Tls(ca=trusted, cert=mine.cert, key=mine.key), retry_s=0
        ) as client,
        aclosing(client.generate("echo", "hello")) as deltas,
    ):
        asked = asyncio.ensure_future(anext(deltas))
        held = await worker.take()
        await held.emit("before")
        assert (await asked).text == "before"
        trusted.write_bytes(theirs.ca.read_bytes())
        theirs.issue("server", "localhost", "127.0.0.1")
        theirs.issue("caller")
        assert await eventually(lambda: answers(client))
        await held.emit("after", last=True)
        assert [delta.text async for delta in deltas] == ["after"]
        assert len(client._calls._frontends._left) == 1
        assert await client.models()
        assert not client._calls._frontends._left


async def answers(client: millrace.AsyncClient) -> bool:
    try:
        return bool(await client.models())
    except Unavailable:
        return False


async def test_files_that_cannot_be_used_are_refused_before_the_first_call(ours: Authority, tmp_path: Path) -> None:
    mine, other, notes = ours.issue("mine"), ours.issue("other"), tmp_path / "notes.txt"
    notes.write_text("no certificate\n")
    for tls, file in (
        (Tls(ca=tmp_path / "none.crt"), "none.crt"),
        (Tls(ca=notes), "notes.txt"),
        (Tls(ca=ours.ca, cert=mine.cert, key=other.key), "other.key"),
    ):
        with pytest.raises(ValueError, match=file):
            async with millrace.AsyncClient("127.0.0.1:1", tls=tls):
                pass
    with pytest.raises(ValueError, match="need each other"):
        Tls(cert=mine.cert)


async def test_a_frontend_that_is_away_is_still_waited_for(ours: Authority) -> None:
    async with millrace.AsyncClient("127.0.0.1:1", tls=Tls(ca=ours.ca), retry_s=0) as client:
        with pytest.raises(Unavailable, match="refused") as refused:
            await client.models()
    assert refused.value.reason == "UNAVAILABLE"
