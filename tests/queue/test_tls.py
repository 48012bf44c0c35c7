"""Redis by TLS, and with passwords that change."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis as BlockingRedis
from structlog.testing import capture_logs

from millrace.queue import connect, dialing
from millrace.queue.connection import AWAY, Server
from tests.certificates import Authority, Pair
from tests.eventually import eventually
from tests.processes import Valkey, free_port
from tests.proxy import Proxy
from tests.queue.journey import journey
from tests.queue.servers import RedisServer

OLD, NEW = "old-password", "new-password"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def serving(authority: Authority, shown: Pair, clients: str = "no") -> Iterator[Server]:
    """A server that shows this certificate; `clients` "yes" wants one of everybody."""
    port = free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", clients, "--tls-ca-cert-file", str(authority.ca)]
    options += ["--tls-cert-file", str(shown.cert), "--tls-key-file", str(shown.key)]
    with RedisServer(*options):
        yield Server(url=f"rediss://127.0.0.1:{port}/0", ca=authority.ca)


async def answers(server: Server) -> bool:
    """Whether it lets us in."""
    async with connect(server) as redis:
        try:
            return bool(await redis.ping())
        except AWAY:
            return False


async def test_everything_works_by_tls(authority: Authority) -> None:
    with serving(authority, authority.issue("server", "127.0.0.1")) as server:
        await journey(server, server)


async def test_a_server_whose_authority_is_not_ours_is_not_spoken_to(authority: Authority, tmp_path: Path) -> None:
    with serving(authority, authority.issue("server", "127.0.0.1")) as server:
        assert await answers(server)
        assert not await answers(replace(server, ca=Authority(tmp_path, "other").ca))
        assert not await answers(replace(server, ca=None))


async def test_a_server_by_another_name_is_not_spoken_to(authority: Authority) -> None:
    with serving(authority, authority.issue("server", "redis.example")) as server:
        assert not await answers(server)


async def test_a_server_that_wants_certificates_is_shown_ours_as_the_files_are_now(
    authority: Authority, tmp_path: Path
) -> None:
    ours = Authority(tmp_path, "other").issue("client")
    with serving(authority, authority.issue("server", "127.0.0.1"), clients="yes") as server:
        assert not await answers(server)
        shown = replace(server, cert=ours.cert, key=ours.key)
        async with connect(shown) as redis:
            with pytest.raises(AWAY):
                await redis.ping()
            authority.issue("client")
            assert await redis.ping()


async def test_a_new_password_is_read_for_the_next_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{OLD}\n")
    with Valkey() as valkey, BlockingRedis.from_url(valkey.url) as operator:
        operator.execute_command("ACL", "SETUSER", "worker", "on", f">{OLD}", "~*", "&*", "+@all")
        target = f"127.0.0.1:{valkey.port}"
        async with Proxy(target) as proxy:
            server = Server(url=f"redis://worker@{proxy.address}/0", password_file=file)
            async with connect(server) as redis:
                assert await redis.acl_whoami() == "worker"
                operator.execute_command("ACL", "SETUSER", "worker", f"<{OLD}", f">{NEW}")
                assert await redis.ping()
                file.write_text(f"{NEW}\n")
                proxy.break_connections()

                async def back() -> bool:
                    return await answers(server) and bool(await redis.ping())

                await eventually(back)
                file.unlink()
                assert not await answers(server)


async def test_why_there_is_no_connection_is_said_once(redis_url: str) -> None:
    async with connect(redis_url.replace("//", "//nobody:nothing@")) as redis:
        with capture_logs() as said:
            for _ in range(3):
                with pytest.raises(AWAY):
                    await redis.ping()
    assert [(event["event"], event["error"][:24]) for event in said] == [
        ("redis.not_connected", "invalid username-passwor")
    ]


async def test_a_server_that_never_answers_the_login_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "CONNECT_S", 0.2)
    with Valkey() as valkey:
        valkey.pause()
        assert not await answers(Server(url=f"redis://:{OLD}@127.0.0.1:{valkey.port}"))
        valkey.resume()
