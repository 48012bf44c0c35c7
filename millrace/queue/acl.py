"""What each part of a deployment may do in Redis: rules for its access control lists, Redis 7.0's.

Made of two declarations: who reads and writes which keys (keys.py tells what they hold), and which commands the code
sends; those of the scripts are read from the scripts, since Redis checks each of them, too. Whatever is not said is
refused.

The rules keep parts from each other's keys, not from all that can be done with their own: a frontend ends jobs, so it
may write to their logs; a worker hands jobs back, so it may write to their queues.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from millrace.queue import keys, scripts


class Role(StrEnum):
    """Whom a user is for. The last two are the servers' own, where they replicate, and where Sentinels watch them."""

    FRONTEND = "frontend"
    WORKER = "worker"
    MONITOR = "monitor"
    REPLICA = "replica"
    SENTINEL = "sentinel"


MODEL = keys.PREFIX + "{*}:"
TENANT = keys.PREFIX + "quota:{*}:"
"""The starts of a model's keys and of a tenant's, which scripts are given: no keys themselves."""
KEYS: Mapping[str, tuple[str, str, str]] = {
    keys.PREFIX + "job-index:*": ("RW", "", ""),
    keys.WORKERS: ("R", "RW", "R"),
    keys.MODELS: ("R", "RW", "R"),
    keys.COMMANDS: ("RW", "R", ""),
    keys.PREFIX + "heard:*": ("RW", "RW", ""),
    TENANT: ("RW", "", ""),
    TENANT + "rates": ("RW", "", ""),
    TENANT + "jobs": ("RW", "", ""),
    MODEL: ("RW", "RW", ""),
    MODEL + "job:*": ("RW", "RW", ""),
    MODEL + "payload:*": ("W", "R", ""),
    MODEL + "results:*": ("RW", "RW", ""),
    MODEL + "waiting:*": ("RW", "RW", ""),
    MODEL + "struck": ("RW", "RW", ""),
    MODEL + "hold": ("", "RW", ""),
    MODEL + "fair:*": ("RW", "RW", ""),
    MODEL + "rest:*": ("RW", "RW", ""),
    MODEL + "running": ("RW", "RW", "R"),
    MODEL + "due": ("RW", "RW", ""),
    MODEL + "load": ("RW", "RW", "R"),
    MODEL + "pace": ("RW", "RW", "R"),
    MODEL + "pulse": ("RW", "RW", ""),
    MODEL + "take:*": ("", "RW", ""),
    MODEL + "barrier": ("W", "", ""),
    MODEL + "statistics": ("RW", "RW", "R"),
    MODEL + "bell": ("W", "RW", ""),
    MODEL + "untold": ("RW", "RW", ""),
}
"""Pattern → what frontends, workers and monitors do with such keys."""
SELECTORS: Mapping[Role, Sequence[str]] = {Role.WORKER: (f"(+del %W~{MODEL}payload:*)",)}
"""What is allowed of keys by certain commands alone: workers remove requests, and cannot make any."""
CHANNELS = (keys.PREFIX + "mailbox:*", keys.STATISTICS)
"""Frontends and workers publish and subscribe to these."""
SCRIPTS: Mapping[Role, Sequence[str]] = {
    Role.FRONTEND: (
        "announce",
        "claim",
        "command",
        "confirm",
        "end",
        "forget",
        "quota",
        "reap",
        "submit",
        "unwatch",
        "watch",
    ),
    Role.WORKER: ("announce", "emit", "reap", "release", "renew", "take"),
}
CONNECTING = ("asking", "cluster|slots", "ping", "role", "select")
COMMANDS: Mapping[Role, Sequence[str]] = {
    Role.FRONTEND: (
        "del",
        "eval",
        "evalsha",
        "get",
        "hget",
        "hgetall",
        "hmget",
        "incrby",
        "info",
        "publish",
        "set",
        "subscribe",
        "time",
        "wait",
        "xrange",
        "zcard",
    ),
    Role.WORKER: ("blpop", "eval", "evalsha", "exists", "get", "hgetall", "incrby", "subscribe", "zcard"),
    Role.MONITOR: ("hgetall", "info", "time", "zcard"),
}
"""What the code itself sends."""
SERVERS: Mapping[Role, Sequence[str]] = {
    Role.REPLICA: ("+psync", "+replconf", "+ping"),
    Role.SENTINEL: (
        "&*",
        "+client|kill",
        "+client|setname",
        "+config|rewrite",
        "+exec",
        "+info",
        "+multi",
        "+ping",
        "+publish",
        "+replicaof",
        "+role",
        "+script|kill",
        "+slaveof",
        "+subscribe",
    ),
}
"""As the servers' documentation has it (redis.io/docs, "ACL", "Rules for Sentinel and replicas")."""
_CALLS = re.compile(r"redis\.call\('(\w+)'")


def rules(role: Role) -> list[str]:
    """All that the role may do, and nothing else, whatever was allowed before."""
    allowed = (
        SERVERS[role]
        if role in SERVERS
        else [
            *_keys(role),
            *_channels(role),
            *_commands(role),
            *SELECTORS.get(role, ()),
        ]
    )
    return ["resetkeys", "resetchannels", "-@all", *allowed]


def user(role: Role, passwords: Iterable[str]) -> str:
    """The role's user and what it may, as an ACL file or ACL SETUSER has it, with the passwords' hashes."""
    hashes = (f"#{hashlib.sha256(password.encode()).hexdigest()}" for password in passwords)
    return " ".join([role, "on", *hashes, *rules(role)])


def _keys(role: Role) -> list[str]:
    at = (Role.FRONTEND, Role.WORKER, Role.MONITOR).index(role)
    return [f"%{access[at]}~{pattern}" for pattern, access in KEYS.items() if access[at]]


def _channels(role: Role) -> list[str]:
    return [f"&{channel}" for channel in CHANNELS] if role in SCRIPTS else []


def _commands(role: Role) -> list[str]:
    called = {call.lower() for name in SCRIPTS.get(role, ()) for call in _CALLS.findall(scripts.source(name)[0])}
    return [f"+{command}" for command in sorted(called.union(COMMANDS[role], CONNECTING))]
