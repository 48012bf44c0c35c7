"""A file of tenants, as `millrace keys` leaves it, and what callers bring."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from millrace.tenants import Key, Policy, Tenant, Tenants, make_key, now


class Book:
    """The file of one test. Each change is written at once."""

    def __init__(self, path: Path) -> None:
        self.path, self.tenants = path, Tenants()
        self.write()

    def write(self) -> None:
        """Beside the file, and then in its place."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(self.tenants.write())
        fresh.rename(self.path)

    def add(self, tenant: str, *, lasts_s: float = 3600, **policy: Any) -> str:
        """A tenant, or another key for it; answers the key."""
        text, key = make_key(lasts=timedelta(seconds=lasts_s), note="", now=now())
        known = self.tenants.by_name.get(tenant, Tenant(policy=Policy(**policy)))
        self.tenants = self.tenants.with_tenant(tenant, known).with_key(tenant, key)
        self.write()
        return text

    def revoke(self, text: str) -> None:
        tenant, key = self.tenants.by_key[text.split("_")[1]]
        values = {name: getattr(key, name) for name in ("id", "hash", "created", "expires")}
        self.tenants = self.tenants.with_key(tenant, Key(**values, revoked=now()))
        self.write()


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)
