"""A client for a Redis Cluster with the face of one server's, and one pipe for each primary.

A command with keys goes to the primary that owns the slot of its first key; the server refuses keys of several slots.
Of those without keys, only these mean something here:

    PING      asks all primaries, and is answered when all have
    WAIT      asks the primaries to which this client has sent something since its last WAIT, behind what it has sent,
              and is answered with the least of their numbers. Where a command before it has met a slot that moved, it
              fails: it may have waited on one server for what was written on another
    INFO      asks all primaries, and is answered with the one that is the fullest by used_memory ÷ maxmemory
    TIME, PUBLISH, subscriptions
              are the primary's that owns slot 0, for all clients alike: so PUBLISH counts all subscribers. The
              servers' clocks must agree within a second, since scripts go by those of their own servers

MOVED says that nothing was executed, and is followed; so is a new owner of the slot where there is no connection to the
old one. ASK is followed, but not by scripts: a script's keys are made from its first, which does not exist itself, and
while a slot is moved key by key they are on either side. Until it is moved, its scripts fail as if the server were
away. (Valkey 9 moves a slot at once, by CLUSTER MIGRATESLOTS.)
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Connection, ConnectionPool
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millrace.queue.pipe import ConnectionLost, Pipe, PipedRedis
from millrace.queue.server import Address
from millrace.queue.slots import Slots

REDIRECTS = 5
SCRIPTS = frozenset({"EVAL", "EVALSHA"})
CONTAINERS = frozenset({"ACL", "CLIENT", "CLUSTER", "CONFIG", "LATENCY", "MEMORY", "SCRIPT", "SLOWLOG"})
"""Whose first word is no key."""
REFERENCE = frozenset({"TIME", "PUBLISH"})
Command = tuple[Any, ...]


class ClusteredRedis(PipedRedis):
    """`pool` makes connections for subscriptions, `dial` those to a node."""

    def __init__(
        self, pool: ConnectionPool, slots: Slots, dial: Callable[[Address], Connection], timeout_s: float | None
    ) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self.timeout_s = timeout_s
        self._slots, self._dial = slots, dial
        self._pipes: dict[Address, Pipe] = {}
        self._sent_to: set[Address] = set()
        self._redirects = 0

    @property
    def answered_at(self) -> float:
        """When the primary that has been silent longest has answered last, by the monotonic clock."""
        return min((self._pipe_to(node).answered_at for node in self._slots.primaries), default=0.0)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        name, *rest = args
        command = (*name.split(" "), *rest)
        options.pop("keys", None)
        if not self._slots.primaries:
            await self._slots.learn()
        parse: Callable[..., Any] = self.response_callbacks.get(name, lambda answer, **_: answer)
        if name == "PING":
            answers = await self._ask_all(self._slots.primaries, command)
            return all(parse(answer, **options) for answer in answers)
        if name == "WAIT":
            return await self._wait(command)
        if name == "INFO":
            answers = await self._ask_all(self._slots.primaries, command)
            return max((parse(answer, **options) for answer in answers), key=_fullness)
        slot = 0 if name in REFERENCE else _slot(command)
        return parse(await self._ask_owner(slot, command), **options)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self._slots.close()
        await asyncio.gather(*(pipe.close() for pipe in self._pipes.values()))
        await super().aclose(close_connection_pool)

    async def _ask_owner(self, slot: int, command: Command) -> Any:
        """Up to the first wait it is one breath, so that calls leave in the order in which they were made."""
        for _ in range(REDIRECTS):
            node = self._slots.owner(slot)
            try:
                return await self._ask(node, command)
            except MovedError as moved:
                self._redirects += 1
                self._slots.move(slot, (moved.host or node[0], moved.port))
            except AskError as elsewhere:
                self._redirects += 1
                if command[0] in SCRIPTS:
                    raise RedisConnectionError(f"slot {slot} is being moved") from elsewhere
                return await self._ask_there((elsewhere.host or node[0], elsewhere.port), command)
            except RedisConnectionError as error:
                await self._slots.learn()
                if isinstance(error, ConnectionLost) or self._slots.owner(slot) == node:
                    raise
                self._redirects += 1
        raise RedisConnectionError(f"the cluster does not agree where slot {slot} is")

    async def _ask(self, node: Address, command: Command) -> Any:
        self._sent_to.add(node)
        try:
            return await self._pipe_to(node).ask(command)
        except (ClusterDownError, TryAgainError) as error:
            self._slots.learn_soon()
            raise RedisConnectionError(f"the cluster cannot serve this now: {error}") from error
        except (RedisConnectionError, RedisTimeoutError, OSError):
            self._slots.learn_soon()
            raise

    async def _ask_there(self, node: Address, command: Command) -> Any:
        """A single key that is on its way to this node."""
        self._sent_to.add(node)
        pipe = self._pipe_to(node)
        _, answer = await _all([pipe.ask(("ASKING",)), pipe.ask(command)])
        return answer

    async def _ask_all(self, nodes: Sequence[Address], command: Command) -> list[Any]:
        return await _all([asyncio.ensure_future(self._ask(node, command)) for node in nodes])

    async def _wait(self, command: Command) -> int:
        nodes = tuple(self._sent_to) or self._slots.primaries
        self._sent_to.clear()
        redirects = self._redirects
        counts: list[int] = await _all([self._pipe_to(node).ask(command) for node in nodes])
        if self._redirects != redirects:
            raise RedisConnectionError("a slot has moved before this WAIT")
        return min(counts)

    def _pipe_to(self, node: Address) -> Pipe:
        if node not in self._pipes:
            self._pipes[node] = Pipe(self._dial(node), self.timeout_s)
        return self._pipes[node]


async def _all(answers: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """All answers; once all are there, the first error is raised."""
    settled = await asyncio.gather(*answers, return_exceptions=True)
    for answer in settled:
        if isinstance(answer, BaseException):
            raise answer
    return settled


def _slot(command: Command) -> int:
    """Of its first key. Raises RedisError where it has none."""
    at = 3 if command[0] in SCRIPTS else 1
    if len(command) <= at or command[0] in CONTAINERS:
        raise RedisError(f"{command[0]} means nothing to a whole cluster")
    key = command[at]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _fullness(info: dict[str, Any]) -> float:
    most = float(info.get("maxmemory", 0))
    return float(info.get("used_memory", 0)) / most if most else 0.0
