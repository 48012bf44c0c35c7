"""API keys, and what is kept of them.

A key is `mr_ID_SECRET`, shown once, when it is made; what is kept is its SHA-256. Nobody can guess a secret of 256
random bits from it, so that a slow hash, which is for passwords, would only make calls slow.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

PREFIX = "mr_"
KEY_PATTERN = re.compile(r"mr_([0-9a-f]{10})_([A-Za-z0-9_-]{43})")
HASH_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")
SECRET_BYTES, ID_BYTES = 32, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What is known of a key."""

    id: str
    hash: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    note: str = ""

    def fits(self, text: str) -> bool:
        """In a time that tells nothing of how much of it fits."""
        return hmac.compare_digest(self.hash, hash_of(text))

    def state(self, now: datetime) -> str:
        """active, expired or revoked."""
        if self.revoked is not None and self.revoked <= now:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


def hash_of(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def make_key(*, lasts: timedelta | None, note: str, now: datetime) -> tuple[str, Key]:
    """A new key: its text, which is nowhere else, and what is kept of it."""
    key_id = secrets.token_hex(ID_BYTES)
    text = f"{PREFIX}{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    expires = now + lasts if lasts is not None else None
    return text, Key(id=key_id, hash=hash_of(text), created=now, expires=expires, note=note)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


KEY_FIELDS = tuple(known.name for known in fields(Key))
REQUIRED = tuple(known.name for known in fields(Key) if known.default is MISSING)


def read_key(where: str, told: Mapping[str, Any]) -> Key:
    """Of what stands in the file under KEY_FIELDS. Raises ValueError that begins with `where`."""
    values = dict(told)
    where = f"{where}: key {values.get('id')!r}"
    if missing := [name for name in REQUIRED if name not in values]:
        raise ValueError(f"{where}: has no {missing[0]}")
    if not isinstance(values["id"], str) or not re.fullmatch("[0-9a-f]{10}", values["id"]):
        raise ValueError(f"{where}: its id must be 10 hexadecimal characters, in quotes where they are all digits")
    if not isinstance(values["hash"], str) or not HASH_PATTERN.fullmatch(values["hash"]):
        raise ValueError(f"{where}: its hash must be sha256: and 64 hexadecimal characters")
    for name in ("created", "expires", "revoked"):
        if values.get(name) is not None:
            values[name] = _time(f"{where}: {name}", values[name])
    return Key(**values | {"note": str(values.get("note") or "")})


def _time(where: str, value: object) -> datetime:
    """UTC where nothing else is said."""
    try:
        read = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"{where} must be a time, as 2026-11-26T12:00:00Z, not {value!r}") from None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def tell_key(key: Key) -> Iterator[tuple[str, str]]:
    for name, value in asdict(key).items():
        if isinstance(value, datetime):
            yield name, value.isoformat().replace("+00:00", "Z")
        elif value:
            yield name, value
