"""Single connections to Redis: where to at the moment, by which certificate, with which password.

Each is made as the files say when it is made; a certificate or a password that was renewed needs no restart.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from redis.asyncio import Connection
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millrace.queue.server import Address, Login, Server

Locate = Callable[[], Awaitable[Address]]
CONNECT_S = 2.0
ASK_S = 1.0
FOLLOW_S = 1.0
KEEPALIVE = {
    getattr(socket, name): number
    for name, number in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
"""By which a subscription, which sends nothing itself, notices in 11 s that its server's machine has gone."""


class Credentials(CredentialProvider):
    """Reads the password for each connection."""

    def __init__(self, login: Login) -> None:
        self._login = login

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        try:
            password = await asyncio.to_thread(self._login.read)
        except (OSError, ValueError) as error:
            raise RedisConnectionError(f"Redis' password: {error}") from error
        return (self._login.user, password) if self._login.user else (password,)


class _Prompt:
    """Bounds the handshake, since reading has no timeout."""

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await super().on_connect_check_health(check_health)  # type: ignore[misc]
        except TimeoutError:
            raise RedisTimeoutError("no answer to the login") from None


class SocketDial(_Prompt, UnixDomainSocketConnection):
    """To a socket on this machine."""


class Dial(_Prompt, Connection):
    """To where `locate` says whenever it connects; by TLS where `context` makes one. With `follows` that is a primary
    that may change: a replica is refused, and a server that is not the primary any more is left within a second,
    though it may still think that it is, and take writes that will be lost."""

    def __init__(
        self,
        *,
        locate: Locate,
        context: Callable[[], ssl.SSLContext] | None = None,
        follows: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._locate, self._make_context, self._follows = locate, context, follows
        self._tls: Mapping[str, Any] = {}
        self._following: asyncio.Task[None] | None = None

    async def _connect(self) -> None:
        self.host, self.port = await self._locate()
        if self._make_context is not None:
            self._tls = {"ssl": await asyncio.to_thread(self._make_context)}
        await super()._connect()  # type: ignore[no-untyped-call]

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {"host": self.host, "port": self.port, **self._tls}

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)
        if self._follows:
            await self._check_role()
            self._following = asyncio.create_task(self._follow())

    async def disconnect(self, *args: Any, **options: Any) -> None:
        if self._following is not None:
            self._following.cancel()
        await super().disconnect(*args, **options)

    async def _check_role(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await self.send_command("ROLE", check_health=False)
                role, *_ = await self.read_response()
        except TimeoutError:
            raise RedisTimeoutError("no answer to ROLE") from None
        if role != b"master":
            raise RedisConnectionError(f"{self.host}:{self.port} is not the primary")

    async def _follow(self) -> None:
        """Breaks the connection when the primary is elsewhere."""
        address = here = (self.host, self.port)
        while address == here:
            await asyncio.sleep(FOLLOW_S)
            with suppress(RedisConnectionError):
                address = await self._locate()
        if self._writer is not None:
            self._writer.transport.abort()


def dial_options(login: Login, db: int = 0) -> dict[str, Any]:
    """What all connections to a server are made with. redis-py repeats nothing, and never times out a read."""
    return {
        "db": db,
        "credential_provider": Credentials(login) if login else None,
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_S,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "driver_info": None,
    }


def tcp_options(server: Server, login: Login, db: int = 0) -> dict[str, Any]:
    """The same for `Dial`, but for `locate`."""
    context = server.context if server.place().tls else None
    keepalive = {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}
    return dial_options(login, db) | keepalive | {"context": context}


def at(address: Address) -> Locate:
    """A server that does not move."""

    async def locate() -> Address:
        return address

    return locate


async def ask_once(connection: Connection, *command: str) -> Any:
    """One answer by a connection that is made for it. Raises RedisConnectionError where none comes in `ASK_S`."""
    try:
        async with asyncio.timeout(ASK_S):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(*command, check_health=False)
            return await connection.read_response()
    except (RedisError, OSError) as error:
        raise RedisConnectionError(f"{connection.host}:{connection.port}: {error!r}") from error
    finally:
        await connection.disconnect(nowait=True)
