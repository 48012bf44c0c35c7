"""Which primary of a Redis Cluster owns which hash slot."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from redis.asyncio import Connection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import ConnectionError as RedisConnectionError

from millrace.queue.dialing import ask_once
from millrace.queue.server import Address

PAUSE_S = 0.1
"""Between two looks at the cluster, at the least."""
log = structlog.get_logger()


class Slots:
    """Learnt from any node, by CLUSTER SLOTS. `dial` makes a connection to a node; `seeds` are nodes to begin with."""

    def __init__(self, seeds: Sequence[Address], dial: Callable[[Address], Connection]) -> None:
        self._seeds, self._dial = tuple(seeds), dial
        self._owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._nodes: set[Address] = set()
        self._look: asyncio.Task[None] | None = None
        self._looked_at, self._closed = 0.0, False
        self.primaries: tuple[Address, ...] = ()
        """Empty before the first answer."""

    def owner(self, slot: int) -> Address:
        """Raises RedisConnectionError where the slot is nobody's."""
        owner = self._owners[slot]
        if owner is None:
            self.learn_soon()
            raise RedisConnectionError(f"no node of the cluster owns slot {slot}")
        return owner

    def move(self, slot: int, owner: Address) -> None:
        """A node has said where one slot is now; the others may have moved, too."""
        self._owners[slot] = owner
        self.learn_soon()

    async def reference(self) -> Address:
        """The owner of slot 0, as it is now: where subscriptions are."""
        await self.learn()
        return self.owner(0)

    async def learn(self) -> None:
        """Looks at the cluster; all that ask meanwhile share one look. Raises RedisConnectionError where no node
        answers."""
        await asyncio.shield(self.learn_soon())

    def learn_soon(self) -> asyncio.Task[None]:
        """The same without waiting for it. Raises RedisConnectionError where this was closed."""
        if self._closed:
            raise RedisConnectionError("the client was closed")
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._ask_around())
            self._look.add_done_callback(_say)
        return self._look

    async def close(self) -> None:
        self._closed = True
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])

    async def _ask_around(self) -> None:
        """In any order, since a node that has lost the others does not know it at once."""
        await asyncio.sleep(self._looked_at + PAUSE_S - time.monotonic())
        self._looked_at = time.monotonic()
        nodes = [*random.sample(sorted(self._nodes), len(self._nodes)), *self._seeds]
        said = []
        for node in dict.fromkeys(nodes):
            try:
                ranges = await ask_once(self._dial(node), "CLUSTER", "SLOTS")
            except RedisConnectionError as error:
                said.append(str(error))
                continue
            if ranges:
                return self._note(node, ranges)
            said.append(f"{node[0]}:{node[1]}: knows no slots")
        raise RedisConnectionError(f"no node of the cluster answers: {'; '.join(said)}")

    def _note(self, told_by: Address, ranges: Sequence[Any]) -> None:
        owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, primary, *_ in ranges:
            owners[first : last + 1] = [_address(primary, told_by)] * (last + 1 - first)
        self._nodes = {_address(node, told_by) for _, _, *nodes in ranges for node in nodes}
        self._owners = owners
        self.primaries = tuple(dict.fromkeys(owner for owner in owners if owner is not None))


def _address(node: Sequence[Any], told_by: Address) -> Address:
    """A node that does not know its own name is called by the name of whoever told."""
    host, port, *_ = node
    name = host.decode() if host else ""
    return (told_by[0] if name in ("", "?") else name), int(port)


def _say(look: asyncio.Task[None]) -> None:
    if not look.cancelled() and (error := look.exception()) is not None:
        log.debug("cluster.unknown", error=str(error))
