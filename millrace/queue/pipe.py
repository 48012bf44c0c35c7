"""A Redis client whose calls share one connection: commands are sent as they come, and answers return in their order.
A call that blocks holds up those behind it, so whoever blocks needs a client of its own.

redis-py takes a connection out of its pool for every call. Here whatever is asked for in one round of the event loop
leaves in one write, so that under load a call costs a fraction of that. Answers are parsed as redis-py parses them.
Nothing is resent: where the connection is lost, every call that waits fails, and the next one connects anew.
"""

import asyncio
import time
from collections import deque
from typing import Any

import hiredis
import structlog
from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

UNBLOCKED = "UNBLOCKED"
"""How a server that is demoted answers calls that block, before any that write."""
log = structlog.get_logger()


class ConnectionLost(RedisConnectionError):
    """The connection broke while calls waited for their answers, or before they were sent; another may hold."""


class PipedRedis(Redis):
    """Redis' client in all but how its commands travel; subscriptions have connections of their own."""

    timeout_s: float | None = None
    """How long the oldest call may wait for its answer; None: for ever."""
    _pipe: "Pipe | None" = None

    @property
    def answered_at(self) -> float:
        """When the last answer was read, by the monotonic clock."""
        return self._pipe.answered_at if self._pipe is not None else 0.0

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if self._pipe is None:
            connection = self.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            self._pipe = Pipe(connection, self.timeout_s)
        name, *rest = args
        command = (*name.split(" "), *rest)
        answer = await self._pipe.ask(command)
        parse = self.response_callbacks.get(name)
        options.pop("keys", None)  # for redis-py's own client-side cache
        return answer if parse is None else parse(answer, **options)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        if self._pipe is not None:
            await self._pipe.close()
        await super().aclose(close_connection_pool)


class Pipe:
    """One connection. `connection` is not connected yet, and has no read timeout."""

    def __init__(self, connection: Connection, timeout_s: float | None) -> None:
        self._connection, self._timeout_s = connection, timeout_s
        self._outbox: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._news = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._failure = ""
        self.answered_at = 0.0

    def ask(self, command: tuple[Any, ...]) -> asyncio.Future[Any]:
        """The command's answer; an error reply is raised. Cancelling it leaves the others undisturbed."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._outbox.append((hiredis.pack_command(command), answer))
        self._news.set()
        if self._serving is None or self._serving.done():
            self._serving = loop.create_task(self._serve())
        return answer

    async def close(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])

    async def _serve(self) -> None:
        """Until the connection is lost."""
        error: Exception = RedisConnectionError("the client was closed")
        try:
            await self._connect()
            error = ConnectionLost("the connection broke")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send())
                tasks.create_task(self._receive())
                if self._timeout_s is not None:
                    tasks.create_task(self._watch(self._timeout_s))
        except ExceptionGroup as group:
            timeouts, others = group.split(RedisTimeoutError)
            error = RedisTimeoutError(f"no answer for {self._timeout_s} s") if timeouts else error
            if others and others.split((RedisError, OSError))[1]:
                raise
        except (RedisError, OSError) as failed:
            error = failed
        finally:
            await self._connection.disconnect(nowait=True)
            self._fail(error)

    async def _connect(self) -> None:
        """Says once why it cannot: a password or a certificate may be wrong."""
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            if str(error) != self._failure:
                log.warning("redis.not_connected", error=str(error))
            self._failure = str(error)
            raise
        self._failure = ""

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            batch, self._outbox = self._outbox, []
            now = time.monotonic()
            self._waiting.extend((now, answer) for _, answer in batch)
            await self._connection.send_packed_command([packed for packed, _ in batch], check_health=False)

    async def _receive(self) -> None:
        while True:
            try:
                answer = await self._connection.read_response(disconnect_on_error=False)
            except ResponseError as error:
                answer = ReadOnlyError(str(error)) if str(error).startswith(UNBLOCKED) else error
            self.answered_at = time.monotonic()
            _, waiting = self._waiting.popleft()
            if waiting.done():
                continue
            if isinstance(answer, ResponseError):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
            if isinstance(answer, ReadOnlyError):
                raise RedisConnectionError("the server was demoted")

    async def _watch(self, timeout_s: float) -> None:
        """Notices a server that has stopped answering."""
        while True:
            await asyncio.sleep(timeout_s / 4)
            now = time.monotonic()
            if self._waiting and now - self._waiting[0][0] > timeout_s:
                raise RedisTimeoutError

    def _fail(self, error: Exception) -> None:
        unanswered = [*(answer for _, answer in self._waiting), *(answer for _, answer in self._outbox)]
        self._waiting.clear()
        self._outbox.clear()
        for answer in unanswered:
            if not answer.done():
                answer.set_exception(type(error)(*error.args))
