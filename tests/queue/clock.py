"""A clock that tests can move, in front of a real server and unchanged scripts.

Nobody can move the server's clock. So a client for tests hands each script the time as one more argument, and puts a
few lines before its text in which `redis.call` answers TIME with it and turns every lifetime into an instant of this
clock. The clock starts far in the server's future: no key expires by itself, `purge` removes what is due.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from millrace.queue import scripts

START_MS = 4_000_000_000_000
SHIM = """
local server, instant = redis, tonumber(table.remove(ARGV))
local redis = {call = function(name, key, ...)
  if name == 'TIME' then return {tostring(math.floor(instant / 1000)), tostring(instant % 1000 * 1000)} end
  if name == 'PEXPIRE' then return server.call('PEXPIREAT', key, instant + ...) end
  if name == 'PTTL' then
    local expiry = server.call('PEXPIRETIME', key)
    return expiry < 0 and expiry or expiry - instant
  end
  if name == 'SET' and select(2, ...) == 'PX' then
    return server.call('SET', key, (...), 'PXAT', instant + select(3, ...))
  end
  return server.call(name, key, ...)
end}
"""
PURGE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local expiry = redis.call('PEXPIRETIME', key)
  if expiry >= 0 and expiry <= tonumber(ARGV[1]) then redis.call('DEL', key) end
end
"""


class Clock:
    """Milliseconds, as `now`."""

    def __init__(self) -> None:
        self.now = START_MS


class ClockedRedis(Redis):
    """A client whose scripts and lifetimes follow `clock`. Works where `clocked_scripts` is in force."""

    clock: Clock

    @classmethod
    def on(cls, url: str, clock: Clock) -> "ClockedRedis":
        redis = cls.from_url(url, protocol=2)
        assert isinstance(redis, ClockedRedis)
        redis.clock = clock
        return redis

    async def evalsha(self, sha: str, numkeys: int, *args: Any) -> Any:
        return await super().evalsha(sha, numkeys, *args, self.clock.now)

    async def eval(self, script: str, numkeys: int, *args: Any) -> Any:
        return await super().eval(script, numkeys, *args, self.clock.now)

    async def set(self, name: Any, value: Any, *, px: int, **options: Any) -> Any:  # type: ignore[override]
        return await super().set(name, value, pxat=self.clock.now + px, **options)

    async def time(self, **_: Any) -> tuple[int, int]:
        return self.clock.now // 1000, self.clock.now % 1000 * 1000

    async def purge(self) -> None:
        """Removes the keys whose time is over."""
        await super().eval(PURGE, 0, self.clock.now)


@contextmanager
def clocked_scripts(replacements: dict[str, list[tuple[str, str]]] | None = None) -> Iterator[None]:
    """Puts the shim before every script. `replacements` (script, or "prelude" for what stands before it → old and
    new text) plants faults."""
    original = scripts.source.__wrapped__
    replacements = replacements or {}
    unused = {(name, old) for name, pairs in replacements.items() for old, _ in pairs}
    texts: dict[str, tuple[str, str]] = {}

    def source(name: str) -> tuple[str, str]:
        if name not in texts:
            text, _ = original(name)
            own = (scripts.FOLDER / f"{name}.lua").read_text()
            parts = {"prelude": text.removesuffix(own), name: own}
            for part in parts:
                for old, new in replacements.get(part, ()):
                    if old in parts[part]:
                        unused.discard((part, old))
                        parts[part] = parts[part].replace(old, new)
            flags, _, text = "".join(parts.values()).partition("\n")
            text = flags + SHIM + text
            texts[name] = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return texts[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripts, "source", source)
        for name in ("submit", *replacements):
            if name != "prelude":
                source(name)
        if unused:
            raise LookupError(f"text that is not in the scripts: {sorted(unused)}")
        yield
