"""Loads the queue's Lua scripts and runs them by hash."""

import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Call = Callable[..., Awaitable[Any]]
FOLDER = Path(__file__).parent / "scripts"
ALONE = ("announce", "claim", "command", "confirm", "quota")
PRELUDES = dict.fromkeys(ALONE, ()) | {"submit": ("prelude", "pace", "admission")}
"""What stands before a script; before all others the first two."""
REFUSED_WHEN_FULL = frozenset({"claim", "submit"})
"""What brings new work; a server whose memory is full still lets all other scripts finish what was begun."""


@cache
def source(name: str) -> tuple[str, str]:
    """A script's text, prelude included, and the SHA-1 by which the server knows it."""
    parts = (*PRELUDES.get(name, ("prelude", "pace")), name)
    text = "".join((FOLDER / f"{part}.lua").read_text() for part in parts)
    text = f"#!lua flags={'' if name in REFUSED_WHEN_FULL else 'allow-oom'}\n{text}"
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


async def at_once(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """A command, once."""
    return await function(*args)


async def run(redis: Redis, name: str, key: str, *args: str | bytes | int | float, call: Call = at_once) -> Any:
    """Runs one script on `key`. A server that does not know it (restart, failover) is given the text. `call` makes each
    of the two commands, and lets NoScriptError through."""
    text, sha = source(name)
    try:
        return await call(redis.evalsha, sha, 1, key, *args)
    except NoScriptError:
        return await call(redis.eval, text, 1, key, *args)
