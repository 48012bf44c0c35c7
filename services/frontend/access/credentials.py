"""What a call brings to say whose it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

AUTHORIZATION, API_KEY, TENANT = "authorization", "x-api-key", "millrace-tenant"
BEARER = "bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Each is empty where the call brings none."""

    secret: str = ""
    """An API key or a JWT."""
    tenant: str | None = None
    """On whose behalf the call is said to be; None where that is not said."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Any]]) -> Self:
        """Of metadata or headers, whose names are lower case; of a name that is there twice the first counts."""
        told: dict[str, str] = {}
        for name, value in pairs:
            if name in (AUTHORIZATION, API_KEY, TENANT) and isinstance(value, str):
                told.setdefault(name, value)
        authorization = told.get(AUTHORIZATION, "")
        if authorization[: len(BEARER)].lower() == BEARER:
            secret = authorization[len(BEARER) :].strip()
        else:
            secret = told.get(API_KEY, "").strip()
        return cls(secret=secret, tenant=told.get(TENANT))
