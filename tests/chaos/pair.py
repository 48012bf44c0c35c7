"""A primary of Redis, its replica, and one address for whichever of them is the primary."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace.queue.connection import connect
from tests.eventually import eventually
from tests.processes import Valkey

SYNC = ("--repl-diskless-sync-delay", "0")
WITHIN_S = 20.0


class Pair:
    """Its servers are restarted and change places; `url` stays: it names a link to the primary's socket, which costs
    nothing, as a proxy would."""

    def __init__(self, folder: Path) -> None:
        self._address = folder / "address"
        servers = [Valkey(*SYNC, "--unixsocket", str(folder / f"{name}.sock"), durable=True) for name in ("a", "b")]
        self.primary, self.replica = servers
        self._sockets = {server: folder / f"{name}.sock" for server, name in zip(servers, ("a", "b"), strict=True)}

    @property
    def url(self) -> str:
        return f"unix://{self._address}"

    async def open(self) -> None:
        """Both servers run."""
        await self._follow()
        self._point()

    async def restart(self, away_s: float) -> None:
        """As an operator restarts a StatefulSet: the replica, then, once the replica has taken over, the other."""
        await self._restart_replica(away_s)
        await self._fail_over()
        await self._restart_replica(away_s)

    async def _restart_replica(self, away_s: float) -> None:
        code = await asyncio.to_thread(self.replica.stop)
        if code != 0:
            raise AssertionError(f"a server ended with {code}:\n{self.replica.log[-2000:]}")
        await asyncio.sleep(away_s)
        await asyncio.to_thread(self.replica.start)
        await self._follow()

    async def _follow(self) -> None:
        """Makes the replica one, and returns when it has everything."""
        async with connect(self.replica.url) as redis:
            await redis.replicaof("127.0.0.1", str(self.primary.port))
        await eventually(lambda: _stands(self.replica, "slave", "up"), within_s=WITHIN_S)

    async def _fail_over(self) -> None:
        """Without loss: the primary holds back writes until the replica has all of them."""
        async with connect(self.primary.url) as redis:
            await redis.execute_command("FAILOVER")  # type: ignore[no-untyped-call]
            await eventually(lambda: _stands(self.replica, "master"), within_s=WITHIN_S)
            self.primary, self.replica = self.replica, self.primary
            self._point()
            for kind in ("normal", "pubsub"):
                await redis.client_kill_filter(_type=kind, skipme=True)
        await eventually(lambda: _stands(self.replica, "slave", "up"), within_s=WITHIN_S)

    def _point(self) -> None:
        """In one step, so that there is always an address."""
        fresh = self._address.with_suffix(".new")
        fresh.symlink_to(self._sockets[self.primary])
        fresh.replace(self._address)


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    """Both keep what they have on disk."""
    async with AsyncExitStack() as stack:
        servers = Pair(Path(stack.enter_context(TemporaryDirectory())))
        await stack.enter_async_context(servers.primary)
        await stack.enter_async_context(servers.replica)
        await servers.open()
        yield servers


async def _stands(server: Valkey, role: str, link: str | None = None) -> bool:
    async with connect(server.url) as redis:
        told = await redis.info("replication")
    return bool(told["role"] == role and told.get("master_link_status") == link)
