"""Who is let in by a key, and what those learn that are not."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from millrace.errors import Code, Denied, InvalidRequest
from millrace.tenants import Tenants, make_key, now
from services.frontend.access.credentials import Credentials
from services.frontend.access.gate import GuardedGate, OpenGate
from services.frontend.access.watched import Watched
from tests.eventually import eventually
from tests.frontend.access.tenants import Book


@asynccontextmanager
async def guarded(path: Path, after: timedelta = timedelta()) -> AsyncIterator[GuardedGate]:
    """A gate that follows its file."""
    gate = GuardedGate(await Watched.open(path, Tenants.parse), None, lambda: datetime.now(UTC) + after)
    running = asyncio.create_task(gate.run())
    yield gate
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def refusal(gate: GuardedGate, secret: str, tenant: str | None = None) -> tuple[Code, str]:
    with pytest.raises(Denied) as refused:
        gate.admit(Credentials(secret=secret, tenant=tenant))
    assert secret == "" or secret not in refused.value.message, "a secret is never repeated"
    return refused.value.code, refused.value.reason


def admitted(gate: GuardedGate, secret: str) -> str:
    """Whose the key is; empty where it is refused."""
    try:
        return gate.admit(Credentials(secret=secret)).tenant
    except Denied:
        return ""


async def test_a_key_says_whose_call_it_is(book: Book) -> None:
    keys = {tenant: book.add(tenant) for tenant in ("acme", "blue")}
    async with guarded(book.path) as gate:
        assert {tenant: admitted(gate, key) for tenant, key in keys.items()} == {"acme": "acme", "blue": "blue"}


@pytest.mark.parametrize(
    "wrong", ["mr_0123456789_" + "a" * 43, "mr_", "sk-something", "mr_x_y", "x" * 100_000, "mr_" + "ü" * 50]
)
async def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(book: Book, key: str, wrong: str) -> None:
    async with guarded(book.path) as gate:
        assert refusal(gate, wrong) == (Code.UNAUTHENTICATED, "CREDENTIALS_INVALID")


async def test_the_id_of_a_key_alone_opens_nothing(book: Book, key: str) -> None:
    async with guarded(book.path) as gate:
        for forged in (f"{key[:14]}{'a' * 43}", key[:-1] + ("a" if key[-1] != "a" else "b"), key + "a"):
            assert refusal(gate, forged) == (Code.UNAUTHENTICATED, "CREDENTIALS_INVALID")


async def test_who_brings_nothing_is_told_what_to_send(book: Book, key: str) -> None:
    async with guarded(book.path) as gate:
        with pytest.raises(Denied, match="authorization: Bearer") as refused:
            gate.admit(Credentials())
    assert refused.value.reason == "CREDENTIALS_MISSING"


async def test_an_expired_key_is_told_so(book: Book) -> None:
    key = book.add("acme", lasts_s=60)
    async with guarded(book.path) as gate:
        assert admitted(gate, key) == "acme"
    async with guarded(book.path, timedelta(seconds=61)) as gate:
        assert refusal(gate, key) == (Code.UNAUTHENTICATED, "KEY_EXPIRED")


async def test_a_revoked_key_stops_at_once_and_is_told_so(book: Book, key: str) -> None:
    other = book.add("acme")
    async with guarded(book.path) as gate:
        assert admitted(gate, key) == "acme"
        book.revoke(key)
        await eventually(lambda: admitted(gate, key) == "", 2.0)
        assert refusal(gate, key) == (Code.UNAUTHENTICATED, "KEY_REVOKED")
        assert admitted(gate, other) == "acme"


async def test_a_new_key_is_taken_while_the_frontend_runs(book: Book, key: str) -> None:
    async with guarded(book.path) as gate:
        fresh = book.add("blue")
        await eventually(lambda: admitted(gate, fresh) == "blue", 2.0)


async def test_a_secret_that_kubernetes_replaces_is_read_again(tmp_path: Path, book: Book, key: str) -> None:
    """A mounted Secret is a link into ..data, itself a link to a folder, which is moved over."""
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
    (tmp_path / "..1" / "keys").write_text(book.tenants.write())
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys").symlink_to("..data/keys")
    async with guarded(tmp_path / "keys") as gate:
        fresh = book.add("blue")
        (tmp_path / "..2" / "keys").write_text(book.tenants.write())
        (tmp_path / "..fresh").symlink_to("..2")
        (tmp_path / "..fresh").rename(tmp_path / "..data")
        await eventually(lambda: admitted(gate, fresh) == "blue", 2.0)


@pytest.mark.parametrize("broken", ["tenants: [", "tenants: {a: {keys: 3}}", "\0", "", "[" * 1_000])
async def test_a_file_that_is_broken_later_keeps_the_keys_that_were(book: Book, key: str, broken: str) -> None:
    with capture_logs() as logs:
        async with guarded(book.path) as gate:
            book.path.write_text(broken)
            await eventually(lambda: any(log["event"] == "file.refused" for log in logs), 2.0)
            assert admitted(gate, key) == "acme"
            fresh = book.add("blue")
            await eventually(lambda: admitted(gate, fresh) == "blue", 2.0)


async def test_a_file_that_is_gone_later_keeps_the_keys_that_were(book: Book, key: str) -> None:
    with capture_logs() as logs:
        async with guarded(book.path) as gate:
            book.path.unlink()
            await eventually(lambda: any(log["event"] == "file.refused" for log in logs), 2.0)
            assert admitted(gate, key) == "acme"


async def test_a_frontend_does_not_start_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: No such file"):
        await Watched.open(tmp_path / "none.yaml", Tenants.parse)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_a_frontend_does_not_start_where_it_may_not_read_its_file(book: Book) -> None:
    book.path.chmod(0)
    with pytest.raises(ValueError, match="Permission denied"):
        await Watched.open(book.path, Tenants.parse)


async def test_a_tenant_that_is_named_beside_a_key_must_be_the_keys(book: Book, key: str) -> None:
    async with guarded(book.path) as gate:
        assert gate.admit(Credentials(secret=key, tenant="acme")).tenant == "acme"
        for other in ("blue", "", "not a name"):
            assert refusal(gate, key, other) == (Code.PERMISSION_DENIED, "TENANT_MISMATCH")


async def test_an_open_gate_lets_in_everybody_as_whom_they_say(book: Book) -> None:
    gate = OpenGate()
    assert gate.admit(Credentials()).tenant == "default"
    assert gate.admit(Credentials(secret="mr_whatever", tenant="blue")).tenant == "blue"
    assert gate.admit(Credentials()).policy.admin
    with pytest.raises(InvalidRequest):
        gate.admit(Credentials(tenant="not a name"))


@pytest.mark.parametrize(
    ("pairs", "secret"),
    [
        ([("authorization", "Bearer k")], "k"),
        ([("authorization", "bearer  k ")], "k"),
        ([("authorization", "Basic k")], ""),
        ([("authorization", "k")], ""),
        ([("x-api-key", "k")], "k"),
        ([("authorization", "Basic z"), ("x-api-key", "k")], "k"),
        ([("x-api-key", "z"), ("authorization", "Bearer k")], "k"),
        ([("authorization", "Bearer k"), ("authorization", "Bearer z")], "k"),
        ([("authorization-bin", b"Bearer k")], ""),
        ([], ""),
    ],
)
def test_a_secret_is_found_where_clients_put_it(pairs: list[tuple[str, str]], secret: str) -> None:
    assert Credentials.of(pairs).secret == secret


def test_a_key_stands_nowhere_but_in_the_callers_hands() -> None:
    text, key = make_key(lasts=None, note="", now=now())
    assert text.split("_", 2)[2] not in Tenants().with_key("acme", key).write()
