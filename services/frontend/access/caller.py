"""Who calls."""

from dataclasses import dataclass

from millrace.tenants import EVERYTHING, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    tenant: str
    policy: Policy = EVERYTHING
