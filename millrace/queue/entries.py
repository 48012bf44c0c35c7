"""Entries of hashes that many processes write, some of them of another version of this service."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import structlog

T = TypeVar("T")
MOST_TOLD_BYTES = 200
log = structlog.get_logger()


class Entries:
    """Reads hashes again and again. What it cannot read it leaves out, and tells once: an entry that is wrong harms
    nobody but its writer."""

    def __init__(self) -> None:
        self._unreadable: dict[str, set[bytes]] = {}
        """By key: the fields that could not be read at the last look."""

    def read(self, key: str, stored: Mapping[bytes, bytes], parse: Callable[[bytes], T]) -> dict[bytes, T]:
        """What `parse` makes of each field of the hash at `key`, in the order of the fields' names."""
        parsed: dict[bytes, T] = {}
        told, unreadable = self._unreadable.get(key, set()), set[bytes]()
        for field, value in sorted(stored.items()):
            try:
                parsed[field] = parse(value)
            except Exception as error:  # of any kind: the parser expects what this version writes
                unreadable.add(field)
                if field not in told:
                    name, start = field.decode(errors="replace"), repr(value[:MOST_TOLD_BYTES])
                    log.warning("entry.unreadable", key=key, field=name, value=start, error=repr(error))
        self._unreadable[key] = unreadable
        return parsed
