"""The server: a real Valkey behind a unix socket, whose scripts see the time that they are given.

Commands are carried out one by one, each at an instant of the schedule's clock, and nothing else talks to the server.
So one connection does it all: behind each script it asks how the jobs stand, and it hears what the script published.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import hiredis
import msgpack
from redis.exceptions import NoScriptError

from millrace.queue import keys, wire
from millrace.queue.types import End, Entry, Result
from tests.processes import Valkey

Command = tuple[Any, ...]
Mail = list[tuple[str, list[tuple[str, Result | End]]]]

LOOK = """
local seen, rung = {}, redis.call('LLEN', KEYS[1])
redis.call('DEL', KEYS[1])
for at, key in ipairs(ARGV) do
  local h = redis.call('HMGET', key, 'state', 'code', 'reason')
  seen[at] = h[1] and h[1] .. ' ' .. (h[2] or '') .. ' ' .. (h[3] or '') or '  '
end
table.insert(seen, 1, rung)
return seen
"""
PURGE = """
local gone, logs, next_expiry = {}, {}, tonumber(ARGV[2])
for _, key in ipairs(redis.call('KEYS', '*')) do
  local expiry = redis.call('PEXPIRETIME', key)
  if expiry >= 0 and expiry <= tonumber(ARGV[1]) then
    table.insert(gone, key)
    if redis.call('TYPE', key).ok == 'stream' then logs[key] = redis.call('XRANGE', key, '-', '+') end
  elseif expiry >= 0 then
    next_expiry = math.min(next_expiry, expiry)
  end
end
for _, key in ipairs(gone) do redis.call('DEL', key) end
return cmsgpack.pack({gone, logs, next_expiry})
"""
SHORTEST_MS = 3_000
"""No key is given a shorter life."""


class LocalValkey(Valkey):
    """Also reached through a unix socket, which is faster."""

    def __init__(self) -> None:
        super().__init__()
        self._command += ["--unixsocket", str(self.path)]

    @property
    def path(self) -> Path:
        return self.folder / "socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A job as it stands behind a script; `state` is empty where there is no such job."""

    state: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a script answered, and what it did besides."""

    reply: Any
    mail: Mail
    rung: int
    """How often the bell was."""
    looks: list[Look]
    logs: list[list[Entry]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    names: list[str]
    logs: dict[str, list[Entry]]


class Store:
    """One connection to one server; `clocked_scripts` must be in force."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._reader = hiredis.Reader()
        self._pushed: list[Any] = []
        self._seen_ms = self._next_expiry_ms = 0
        self._lost_scripts = True
        self._ask("HELLO", 3)
        self._send([("PSUBSCRIBE", keys.mailbox("*")), ("PING",)])
        self._receive()
        self._load_own()

    def reset(self, scripts: Sequence[str]) -> None:
        """An empty server that knows these scripts."""
        if self._lost_scripts:
            for text in scripts:
                self._ask("SCRIPT", "LOAD", text)
        self._lost_scripts = False
        self._ask("FLUSHALL")
        self._pushed.clear()
        self._seen_ms = self._next_expiry_ms = 0

    def lose_scripts(self) -> None:
        """As a restart does."""
        self._lost_scripts = True
        self._ask("SCRIPT", "FLUSH")
        self._load_own()

    def execute(self, command: Command, now_ms: int) -> Any:
        """The reply alone."""
        self._send([_timed(command, now_ms)])
        return _raised(self._receive())

    def run_script(
        self, command: Command, now_ms: int, *, bell: str, looked_at: Sequence[str], read: Sequence[str]
    ) -> Outcome:
        """Runs a script. `looked_at`: keys of jobs to look at behind it; `read`: logs to be read before it."""
        readings = [("XRANGE", key, "-", "+") for key in read]
        self._send([*readings, _timed(command, now_ms), ("EVALSHA", self._look, 1, bell, *looked_at)])
        *logs, reply, seen = [self._receive() for _ in range(len(readings) + 2)]
        mail = self._mail()
        return Outcome(
            reply=_raised(reply),
            mail=mail,
            rung=seen[0],
            looks=[_look(text) for text in seen[1:]],
            logs=[_entries(log) for log in logs],
        )

    def log(self, key: str) -> list[Entry]:
        """A job's whole log."""
        return _entries(self._ask("XRANGE", key, "-", "+"))

    def purge(self, now_ms: int) -> Purged | None:
        """Removes the keys whose time is over; asks the server where there may be one."""
        before, self._seen_ms = self._seen_ms, now_ms
        if before <= now_ms < self._next_expiry_ms:
            return None
        reply = self._ask("EVALSHA", self._purge, 0, now_ms, now_ms + SHORTEST_MS)
        names, logs, self._next_expiry_ms = msgpack.unpackb(reply, raw=True)
        return Purged(
            names=[name.decode() for name in names or ()],
            logs={name.decode(): _entries(entries) for name, entries in dict(logs or {}).items()},
        )

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load_own(self) -> None:
        self._look, self._purge = (self._ask("SCRIPT", "LOAD", text).decode() for text in (LOOK, PURGE))

    def _ask(self, *command: Any) -> Any:
        self._send([command])
        return _raised(self._receive())

    def _send(self, commands: Sequence[Command]) -> None:
        self._socket.sendall(b"".join(hiredis.pack_command(command) for command in commands))

    def _receive(self) -> Any:
        while True:
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(1 << 18))
            elif isinstance(reply, hiredis.PushNotification):
                self._pushed.append(reply)
            else:
                return reply

    def _mail(self) -> Mail:
        pushed, self._pushed = self._pushed, []
        prefix = keys.mailbox("")
        messages = [(push[2].decode().removeprefix(prefix), push[3]) for push in pushed if push[0] == b"pmessage"]
        return [(frontend, wire.decode_mailbox(body)) for frontend, body in sorted(messages)]


def _timed(command: Command, now_ms: int) -> Command:
    """Scripts learn the time as their last argument; a lifetime becomes an instant."""
    if command[0] in ("EVALSHA", "EVAL"):
        return (*command, now_ms)
    if command[0] == "SET" and "PX" in command:
        at = command.index("PX")
        return (*command[:at], "PXAT", now_ms + command[at + 1], *command[at + 2 :])
    return command


def _raised(reply: Any) -> Any:
    if not isinstance(reply, hiredis.ReplyError):
        return reply
    if str(reply).startswith("NOSCRIPT"):
        raise NoScriptError(str(reply))
    raise reply


def _look(text: bytes) -> Look:
    state, code, reason = text.decode().split(" ")
    return Look(state=state, code=code, reason=reason)


def _entries(raw: Any) -> list[Entry]:
    return [wire.decode_entry(entry_id, dict(zip(flat[::2], flat[1::2], strict=True))) for entry_id, flat in raw]
