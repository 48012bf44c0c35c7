"""JWTs (RFC 7519) of an issuer whose public keys stand in a JWKS file (RFC 7517).

The algorithm is the setting's, never the token's, so that a public key cannot be taken for a shared secret and `none`
is no signature (RFC 8725, 3.1). A token that was checked is remembered by its hash for a while, not beyond its own
time and not beyond a change of the file: a call then costs a hash instead of a signature.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jwt

from millrace.errors import Code, Denied
from millrace.queue.keys import TENANT_PATTERN
from services.frontend.access.watched import Watched

LEEWAY_S = 30.0
"""How far clocks may differ."""
REMEMBERED, REMEMBERED_S = 4_096, 60.0
LONGEST = 16 << 10
"""Bytes of a token."""
KINDS = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
SIGNATURE_BITS = 2048
"""The least of an RSA key."""
Keys = Mapping[str, jwt.PyJWK]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """What a token must say."""

    algorithm: str
    audience: str
    name: str = ""
    """Its iss; empty: anything."""
    tenant_claim: str = "sub"


class Tokens:
    """Raises Denied for tokens that do not hold."""

    def __init__(self, keys: Watched[Keys], issuer: Issuer, clock: Callable[[], float] = time.time) -> None:
        self._keys, self._issuer, self._clock = keys, issuer, clock
        self._checked_by = keys.value
        self._checked: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        """By the token's hash: its tenant, and how long that is remembered."""

    @classmethod
    async def open(cls, path: Path, issuer: Issuer) -> "Tokens":
        """Raises ValueError where the file holds no key that fits."""
        return cls(await Watched.open(path, partial(parse_keys, issuer.algorithm)), issuer)

    async def run(self) -> None:
        await self._keys.run()

    def tenant_of(self, token: str) -> str:
        """Whose token it is."""
        if self._keys.value is not self._checked_by:
            self._checked_by = self._keys.value
            self._checked.clear()
        return self._remembered(token) or self._check_anew(token)

    def _remembered(self, token: str) -> str:
        """Empty where the token is not remembered, or not any more."""
        tenant, until = self._checked.get(_digest(token), ("", 0.0))
        return tenant if until > self._clock() else ""

    def _check_anew(self, token: str) -> str:
        tenant, expires = self._check(token)
        self._checked[_digest(token)] = (tenant, min(expires, self._clock() + REMEMBERED_S))
        if len(self._checked) > REMEMBERED:
            self._checked.popitem(last=False)
        return tenant

    def _check(self, token: str) -> tuple[str, float]:
        """Its tenant, and when it expires."""
        if len(token) > LONGEST:
            raise _invalid(f"has more than {LONGEST} bytes")
        try:
            claims = self._claims(token)
        except jwt.ExpiredSignatureError:
            raise Denied(Code.UNAUTHENTICATED, "the token has expired: get a new one", reason="TOKEN_EXPIRED") from None
        except jwt.MissingRequiredClaimError as error:
            raise _invalid(f"has no {error.claim}") from None
        except jwt.InvalidAudienceError:
            raise _invalid(f"is not for {self._issuer.audience}") from None
        except jwt.InvalidIssuerError:
            raise _invalid(f"is not of {self._issuer.name}") from None
        except jwt.ImmatureSignatureError:
            raise _invalid("does not hold yet") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _invalid(f"is not signed with {self._issuer.algorithm} by a key that is known here") from None
        tenant = claims.get(self._issuer.tenant_claim)
        if not isinstance(tenant, str) or not TENANT_PATTERN.fullmatch(tenant):
            raise _invalid(f"names no tenant: {self._issuer.tenant_claim} must match {TENANT_PATTERN.pattern}")
        return tenant, float(claims["exp"])

    def _claims(self, token: str) -> Mapping[str, Any]:
        keys = self._keys.value
        named = jwt.get_unverified_header(token).get("kid")
        key = keys.get(named) if named is not None else next(iter(keys.values())) if len(keys) == 1 else None
        if key is None:
            raise jwt.InvalidKeyError(named)
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=[self._issuer.algorithm],
            audience=self._issuer.audience,
            issuer=self._issuer.name or None,
            leeway=LEEWAY_S,
            options={"require": ["exp", "aud", *(["iss"] if self._issuer.name else [])]},
        )
        return claims


def parse_keys(algorithm: str, text: str) -> Keys:
    """A JWKS' keys that sign with the algorithm, by kid. Raises ValueError."""
    try:
        told = json.loads(text)["keys"]
        wanted = [key for key in told if _signs(key, algorithm)]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError('is no JWKS: it must be JSON, {"keys": […]}') from None
    if any("d" in key for key in wanted):
        raise ValueError("holds a private key: only public ones belong here")
    keys: dict[str, jwt.PyJWK] = {}
    for number, key in enumerate(wanted):
        name = key.get("kid", f"#{number}")
        try:
            keys[name] = jwt.PyJWK(key, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise ValueError(f"key {name!r} cannot be read: {error}") from None
        if algorithm == "RS256" and keys[name].key.key_size < SIGNATURE_BITS:
            raise ValueError(f"key {name!r} has fewer than {SIGNATURE_BITS} bits")
    if not keys:
        raise ValueError(f"holds no key for {algorithm}")
    return keys


def _signs(key: Mapping[str, Any], algorithm: str) -> bool:
    if key.get("kty") != KINDS[algorithm] or key.get("use", "sig") != "sig":
        return False
    return bool(key.get("alg", algorithm) == algorithm)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _invalid(problem: str) -> Denied:
    return Denied(Code.UNAUTHENTICATED, f"the token {problem}", reason="TOKEN_INVALID")
