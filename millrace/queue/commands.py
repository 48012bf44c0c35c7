"""What is wanted of the models of a repository: written by any frontend, carried out by every worker that serves the
repository, also by one that starts later."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from millrace.errors import Unavailable
from millrace.queue import keys, scripts
from millrace.queue.connection import AWAY, Redis, RedisError, repeated
from millrace.queue.entries import Entries

SERIAL = b"serial"
ALL = ""
"""The name of no model: a command to look at the whole repository again."""


class Verb(StrEnum):
    LOAD = "load"
    UNLOAD = "unload"
    LOOK = "look"
    """Reads the repository again, and changes nothing of what is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The last word about one model."""

    serial: int
    """Of a later command it is higher."""
    verb: Verb
    at_ms: int
    """When it was given, by the server's clock."""


class Commands:
    """Raises `Unavailable` where Redis is away. A command that cannot be read is as if it had not been given."""

    def __init__(self, redis: Redis) -> None:
        self._redis, self._entries = redis, Entries()

    async def give(self, repository: str, name: str, verb: Verb) -> int:
        """Answers the command's serial number."""
        try:
            serial: int = await scripts.run(
                self._redis, "command", keys.COMMANDS, f"{repository}/{name}", verb, call=repeated
            )
        except (*AWAY, RedisError) as error:
            raise _away() from error
        return serial

    async def read(self, repository: str) -> dict[str, Command]:
        """The last command about each model, by name."""
        try:
            stored: Any = await repeated(self._redis.hgetall, keys.COMMANDS)
        except (*AWAY, RedisError) as error:
            raise _away() from error
        start = f"{repository}/".encode()
        own = {field: value for field, value in stored.items() if field != SERIAL and field.startswith(start)}
        commands = self._entries.read(keys.COMMANDS, own, _command)
        return {field.removeprefix(start).decode(errors="replace"): command for field, command in commands.items()}


def _command(text: bytes) -> Command:
    fields = json.loads(text)
    return Command(serial=fields["serial"], verb=Verb(fields["verb"]), at_ms=fields["at_ms"])


def _away() -> Unavailable:
    return Unavailable("the commands are not reachable", reason="QUEUE_AWAY")
