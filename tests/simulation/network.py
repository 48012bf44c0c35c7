"""Between an actor and the server: connections on which commands arrive in order, late, or never, and answers as well.

Each command is carried out when it arrives, by virtual time. A connection that breaks fails every call that waits on
it, as the real client does; what was under way may still arrive. One that is held up times out, and its commands arrive
long after they were sent again on the next.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millrace.queue.connection import ConnectionLost
from tests.simulation.store import Command
from tests.simulation.verbs import Verb, meant
from tests.simulation.world import World

TIMEOUT_S = 2.0
REFUSED_S = 0.1
SPACING_S = 1e-5
"""Between two commands on one connection."""


@dataclass(slots=True, eq=False)
class Request:
    command: Command
    verb: Verb | None
    answer: asyncio.Future[Any]
    arrived: bool = False
    lost: bool = False
    reply_lost: bool = False


@dataclass(slots=True, eq=False)
class Connection:
    open: bool = True
    waiting: list[Request] = field(default_factory=list)
    free_at: float = 0.0
    """When the next command can arrive."""


class Asked(Protocol):
    async def ask(self, command: Command) -> Any:
        """The reply; errors are raised."""


class LinkedRedis(Redis):
    """Redis' client, whose commands go wherever its link leads."""

    link: Asked

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        name, *rest = args
        answer = await self.link.ask((*name.split(" "), *rest))
        parse = self.response_callbacks.get(name)
        options.pop("keys", None)
        return answer if parse is None else parse(answer, **options)


class Link:
    """One process's way to the server. `gate` lets a process go on that is not frozen."""

    def __init__(self, world: World, name: str, gate: Callable[[], Awaitable[None]]) -> None:
        self._world, self._name, self._gate = world, name, gate
        self._connection = Connection()

    async def ask(self, command: Command) -> Any:
        if self._world.is_away:
            await asyncio.sleep(REFUSED_S)
            await self._gate()
            raise RedisConnectionError("the server is away")
        try:
            reply = await self._send(command).answer
        except RedisError:
            await self._gate()
            raise
        await self._gate()
        return reply

    def cut(self, error: RedisError | None) -> None:
        """Breaks the connection. Of what is under way the first part arrives. No `error`: the process is dead."""
        connection, self._connection = self._connection, Connection()
        connection.open = False
        under_way = [request for request in connection.waiting if not request.arrived]
        arrives = self._world.rng.randint(0, len(under_way)) if under_way else 0
        for request in under_way[arrives:]:
            request.lost = True
        if error is not None:
            self._fail(connection, error)

    def _send(self, command: Command) -> Request:
        world, connection = self._world, self._connection
        request = Request(command, meant(), world.loop.create_future())
        connection.waiting.append(request)
        self._draw_fate(request)
        self._schedule(connection, request, world.loop.time() + world.latency())
        return request

    def _draw_fate(self, request: Request) -> None:
        world, weather = self._world, self._world.weather
        drawn = world.rng.random()
        if world.calm:
            return
        if drawn < weather.lost_reply:
            world.count("network: reply lost")
            request.reply_lost = True
        elif (drawn := drawn - weather.lost_reply) < weather.lost_request:
            world.count("network: request lost")
            connection, request.lost = self._connection, True
            world.loop.call_later(world.latency(), self._break, connection)
        elif drawn - weather.lost_request < weather.held_up:
            world.count("network: held up")
            self._connection.free_at = world.loop.time() + world.rng.uniform(0.3, 7.0)

    def _schedule(self, connection: Connection, request: Request, at: float) -> None:
        world = self._world
        at = connection.free_at = max(at, connection.free_at + SPACING_S)
        world.under_way += 1
        world.loop.call_at(at, self._arrive, connection, request)
        if at > world.loop.time() + TIMEOUT_S / 2:
            world.loop.call_later(TIMEOUT_S, self._time_out, connection, request)

    def _arrive(self, connection: Connection, request: Request) -> None:
        world = self._world
        world.under_way -= 1
        if request.lost or world.is_away:
            return
        if world.loop.time() < world.stalled_until:
            self._schedule(connection, request, world.stalled_until)
            return
        request.arrived = True
        if not connection.open:
            world.count("network: arrives after its connection broke")
        reply = world.execute(self._name, request.command, request.verb)
        if request.reply_lost:
            self._break(connection)
        elif connection.open:
            world.loop.call_later(world.latency(), _answer, connection, request, reply)

    def _break(self, connection: Connection) -> None:
        if connection is self._connection:
            self.cut(ConnectionLost("the connection broke"))

    def _time_out(self, connection: Connection, request: Request) -> None:
        """The real client notices that a call waits too long, and gives up the connection."""
        if connection is not self._connection or request.answer.done():
            return
        self._world.count("network: timed out")
        self._connection = Connection()
        connection.open = False
        self._fail(connection, RedisTimeoutError("no answer"))

    def _fail(self, connection: Connection, error: RedisError) -> None:
        for request in connection.waiting:
            if not request.answer.done():
                request.answer.set_exception(error)


def _answer(connection: Connection, request: Request, reply: Any) -> None:
    if not connection.open or request.answer.done():
        return
    connection.waiting.remove(request)
    if isinstance(reply, Exception):
        request.answer.set_exception(reply)
    else:
        request.answer.set_result(reply)
