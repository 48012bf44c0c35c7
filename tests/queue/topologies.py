"""Several servers that are one Redis: a primary that a Sentinel watches over, and a cluster."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from millrace.errors import Unavailable
from tests.eventually import eventually
from tests.processes import Process, Valkey, free_port
from tests.queue.servers import SLOTS

T = TypeVar("T")
PRIMARY, SENTINEL_PASSWORD = "main", "sentinel-password"
DOWN_MS = 300


class Sentinel(Process):
    """Watches over a primary, alone; whoever asks it needs `SENTINEL_PASSWORD`. It calls the primary `PRIMARY`."""

    def __init__(self, like: Valkey, port: int) -> None:
        """The same program as `like`, for the server at `port`."""
        super().__init__([])
        self.port = free_port()
        file = self.folder / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel monitor {PRIMARY} 127.0.0.1 {port} 1",
            f"sentinel down-after-milliseconds {PRIMARY} {DOWN_MS}",
            f"sentinel failover-timeout {PRIMARY} 2000",
        ]
        file.write_text("".join(f"{line}\n" for line in lines))
        self._command = [like.program, str(file), "--sentinel"]

    @property
    def url(self) -> str:
        """Of the primary. The first Sentinel that it names is not there."""
        hosts = f"127.0.0.1:1,127.0.0.1:{self.port}"
        return f"redis+sentinel://{hosts}/{PRIMARY}?sentinel_password={SENTINEL_PASSWORD}"

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"-NOAUTH")
        except OSError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    primary: Valkey
    replica: Valkey
    sentinel: Sentinel


@asynccontextmanager
async def watched(make: Callable[..., Valkey] = Valkey) -> AsyncIterator[Watched]:
    """A primary whose replica has all that it has, and whose Sentinel knows of the replica."""
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(make("--repl-diskless-sync-delay", "0"))
        replica = await stack.enter_async_context(make("--replicaof", f"127.0.0.1 {primary.port}"))
        await _synchronised(replica)
        sentinel = await stack.enter_async_context(Sentinel(primary, primary.port))
        asking = await stack.enter_async_context(Redis(port=sentinel.port, password=SENTINEL_PASSWORD))

        async def known() -> bool:
            return bool(await ask(asking, "SENTINEL", "REPLICAS", PRIMARY))

        await eventually(known, within_s=15.0)
        yield Watched(primary=primary, replica=replica, sentinel=sentinel)


class Node(Valkey):
    """Of a cluster."""

    def __init__(self) -> None:
        self.bus_port = free_port()
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(self.bus_port), "--cluster-node-timeout", "1000")
        super().__init__(*cluster, "--repl-diskless-sync-delay", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    nodes: Sequence[Node]
    """Three primaries, each with a third of the slots, and a replica of the first."""

    @property
    def url(self) -> str:
        """The first node that it names is not there."""
        return f"redis+cluster://127.0.0.1:1,127.0.0.1:{self.nodes[1].port}"

    def owner(self, slot: int) -> Node:
        """At the beginning."""
        return self.nodes[slot * 3 // SLOTS]


@asynccontextmanager
async def three_primaries() -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node()) for _ in range(4)]
        clients = [await stack.enter_async_context(Redis.from_url(node.url)) for node in nodes]
        for number, client in enumerate(clients[:3]):
            first, end = -(-SLOTS * number // 3), -(-SLOTS * (number + 1) // 3)
            await ask(client, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            await ask(client, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            await ask(clients[0], "CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        await _replicate(clients[3], await ask(clients[0], "CLUSTER", "MYID"))
        await _synchronised(nodes[3])
        for client in clients:
            await _whole(client, len(nodes))
        yield Cluster(nodes=nodes)


async def persist(call: Callable[[], Awaitable[T]], within_s: float = 15.0) -> T:
    """A call's answer, as soon as Redis is there to give one."""

    async def answer() -> tuple[T] | None:
        try:
            return (await call(),)
        except Unavailable:
            return None

    (answered,) = await eventually(answer, within_s)
    return answered


async def ask(client: "Redis", *command: str | bytes | int, **options: bool) -> Any:
    return await client.execute_command(*command, **options)  # type: ignore[no-untyped-call]


async def _synchronised(replica: Valkey) -> None:
    async with Redis.from_url(replica.url) as client:

        async def linked() -> bool:
            return bool((await client.info("replication"))["master_link_status"] == "up")

        await eventually(linked, within_s=10.0)


async def _replicate(client: "Redis", primary: bytes) -> None:
    async def done() -> bool:
        try:
            return bool(await ask(client, "CLUSTER", "REPLICATE", primary))
        except ResponseError:
            return False

    await eventually(done, within_s=10.0)


async def _whole(client: "Redis", nodes: int) -> None:
    """This node knows all others, and every slot is served."""

    async def so() -> bool:
        said = await ask(client, "CLUSTER", "INFO", NEVER_DECODE=True)
        return b"cluster_state:ok" in said and f"cluster_known_nodes:{nodes}\r".encode() in said

    await eventually(so, within_s=10.0)
