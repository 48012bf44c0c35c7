"""From what a call brings to who calls: the one way in, before anything else of a call is looked at.

Every RPC and every HTTP route passes it, except gRPC's health and reflection services, the page's files, /healthz and
/readyz. It costs microseconds: a hash for a key, a look into a table for a token that was checked before.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from millrace.errors import Code, Denied, InvalidRequest, Violation
from millrace.queue.keys import TENANT_PATTERN
from millrace.tenants import Key, Tenants, hash_of
from millrace.tenants.keys import KEY_PATTERN
from millrace.tenants.keys import PREFIX as KEY_PREFIX
from services.frontend.access.caller import Caller
from services.frontend.access.credentials import TENANT, Credentials
from services.frontend.access.watched import Watched
from services.frontend.settings import FrontendSettings

if TYPE_CHECKING:
    from services.frontend.access.tokens import Tokens

DEFAULT_TENANT = "default"
NOBODYS = Key(id="", hash=hash_of(""), created=datetime.fromtimestamp(0, UTC))
"""Compared with a key whose id is not known, so that the time tells nothing."""


class Gate(Protocol):
    """Lets in, or raises."""

    guarded: bool
    """Whether credentials are wanted."""

    def admit(self, credentials: Credentials) -> Caller:
        """Raises Denied, or InvalidRequest where the tenant's name is none."""

    async def run(self) -> None:
        """Follows what changes."""


async def open_gate(settings: FrontendSettings) -> "OpenGate | GuardedGate":
    """What the settings ask for. Raises ValueError where a file does not do."""
    if settings.api_keys is None and settings.jwks is None:
        return OpenGate()
    tenants = await Watched.open(settings.api_keys, Tenants.parse) if settings.api_keys is not None else None
    return GuardedGate(tenants, await _open_tokens(settings))


async def _open_tokens(settings: FrontendSettings) -> "Tokens | None":
    """What checks signatures takes 20 MB, and is loaded where there are any."""
    if settings.jwks is None:
        return None
    from services.frontend.access.tokens import Issuer, Tokens

    issuer = Issuer(
        algorithm=settings.jwt_algorithm,
        audience=settings.jwt_audience,
        name=settings.jwt_issuer,
        tenant_claim=settings.jwt_tenant_claim,
    )
    return await Tokens.open(settings.jwks, issuer)


class OpenGate:
    """Lets everybody in, as whoever they say they are."""

    guarded = False

    def admit(self, credentials: Credentials) -> Caller:
        return Caller(tenant=check_tenant(DEFAULT_TENANT if credentials.tenant is None else credentials.tenant))

    async def run(self) -> None:
        """Nothing changes."""


class GuardedGate:
    """Lets in who shows a key of `tenants`, or a token that `tokens` takes, where there are any."""

    guarded = True

    def __init__(
        self,
        tenants: Watched[Tenants] | None,
        tokens: "Tokens | None",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tenants, self._tokens, self._clock = tenants, tokens, clock

    def admit(self, credentials: Credentials) -> Caller:
        if not credentials.secret:
            raise _unknown(f"who calls? {self._wanted}", "CREDENTIALS_MISSING")
        if self._tokens is not None and not credentials.secret.startswith(KEY_PREFIX):
            tenant = self._tokens.tenant_of(credentials.secret)
        else:
            tenant = self._owner_of(credentials.secret)
        if credentials.tenant not in (None, tenant):
            text = f"these credentials are tenant {tenant}'s: {TENANT} must be that, or unset"
            raise Denied(Code.PERMISSION_DENIED, text, reason="TENANT_MISMATCH")
        return Caller(tenant=tenant, policy=self._known.policy(tenant))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._tenants is not None:
                tasks.create_task(self._tenants.run())
            if self._tokens is not None:
                tasks.create_task(self._tokens.run())

    @property
    def _known(self) -> Tenants:
        return self._tenants.value if self._tenants is not None else Tenants()

    @property
    def _wanted(self) -> str:
        kinds = ("an API key" if self._tenants is not None else "", "a token" if self._tokens is not None else "")
        return f"send {' or '.join(filter(None, kinds))}, as authorization: Bearer …"

    def _owner_of(self, text: str) -> str:
        """One answer for every key that is not known, whatever is wrong with it; only who has the whole key learns that
        it is not good any more."""
        form = KEY_PATTERN.fullmatch(text)
        tenant, key = self._known.by_key.get(form[1] if form else "", ("", NOBODYS))
        if not key.fits(text[:200]) or key is NOBODYS:
            raise _unknown(f"this is none of the known API keys: {self._wanted}", "CREDENTIALS_INVALID")
        state = key.state(self._clock())
        if state != "active":
            raise _unknown(f"key {key.id} is {state}: ask for a new one", f"KEY_{state.upper()}")
        return tenant


def _unknown(text: str, reason: str) -> Denied:
    return Denied(Code.UNAUTHENTICATED, text, reason=reason)


def check_tenant(tenant: str) -> str:
    """Raises InvalidRequest where it is not a tenant's name."""
    if not TENANT_PATTERN.fullmatch(tenant):
        raise InvalidRequest([Violation(TENANT, f"must match {TENANT_PATTERN.pattern}")])
    return tenant
