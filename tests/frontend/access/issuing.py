"""Somebody who issues JWTs, and the file of public keys that they publish."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
ALGORITHMS: dict[str, Private] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
AUDIENCE = "millrace"


def public(key: Private, algorithm: str = "RS256", **fields: str) -> dict[str, Any]:
    """As it stands in a JWKS."""
    kind = jwt.get_algorithm_by_name(algorithm)
    told: dict[str, Any] = json.loads(kind.to_jwk(key.public_key()))
    return told | fields


def pem(key: Private) -> bytes:
    """What an attacker would take for a shared secret."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def publish(path: Path, *keys: dict[str, Any]) -> Path:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"keys": keys}))
    return fresh.rename(path)


def issue(
    key: Any = RSA, *, algorithm: str = "RS256", kid: str | None = "one", lasts_s: float = 3600, **claims: Any
) -> str:
    """A token of tenant acme for us; a claim that is None is left out."""
    told = {"sub": "acme", "aud": AUDIENCE, "exp": time.time() + lasts_s} | claims
    kept = {name: value for name, value in told.items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers={"kid": kid} if kid is not None else None)
