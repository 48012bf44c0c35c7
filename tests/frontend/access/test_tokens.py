"""Which JWTs are taken, whatever an attacker or a careless issuer puts into them."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from millrace.errors import Code, Denied
from services.frontend.access import tokens as module
from services.frontend.access.tokens import Issuer, Tokens, parse_keys
from tests.eventually import eventually
from tests.frontend.access.issuing import ALGORITHMS, EC, OTHER_RSA, RSA, Private, issue, pem, public, publish

ISSUER = Issuer(algorithm="RS256", audience="millrace")


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    return publish(tmp_path / "jwks.json", public(RSA, kid="one"))


@pytest.fixture
async def tokens(jwks: Path) -> Tokens:
    return await Tokens.open(jwks, ISSUER)


def refusal(tokens: Tokens, token: str) -> str:
    with pytest.raises(Denied) as refused:
        tokens.tenant_of(token)
    assert refused.value.code is Code.UNAUTHENTICATED
    return refused.value.reason


def forged(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None) -> str:
    """What no library would make."""

    def encode(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    text = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest() if secret is not None else b""
    return f"{text}.{encode(signature)}"


CLAIMS = {"sub": "acme", "aud": "millrace", "exp": time.time() + 3600}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_says_whose_call_it_is(tmp_path: Path, algorithm: str) -> None:
    key = ALGORITHMS[algorithm]
    jwks = publish(tmp_path / "jwks.json", public(key, algorithm, kid="one"))
    tokens = await Tokens.open(jwks, Issuer(algorithm=algorithm, audience="millrace"))
    assert tokens.tenant_of(issue(key, algorithm=algorithm, sub="blue")) == "blue"


async def test_a_token_without_a_signature_is_none(tokens: Tokens) -> None:
    for name in ("none", "None", "NONE"):
        assert refusal(tokens, forged({"alg": name, "kid": "one"}, CLAIMS, None)) == "TOKEN_INVALID"


async def test_a_public_key_is_no_shared_secret(tokens: Tokens) -> None:
    for secret in (pem(RSA), pem(RSA).strip(), b""):
        assert refusal(tokens, forged({"alg": "HS256", "kid": "one"}, CLAIMS, secret)) == "TOKEN_INVALID"
        assert refusal(tokens, forged({"alg": "RS256", "kid": "one"}, CLAIMS, secret)) == "TOKEN_INVALID"


async def test_only_the_algorithm_of_the_settings_is_taken(jwks: Path, tokens: Tokens) -> None:
    assert refusal(tokens, issue(RSA, algorithm="RS384")) == "TOKEN_INVALID"
    assert refusal(tokens, issue(RSA, algorithm="PS256")) == "TOKEN_INVALID"
    assert refusal(tokens, issue(EC, algorithm="ES256")) == "TOKEN_INVALID"


async def test_a_key_that_the_token_brings_along_is_not_looked_at(tokens: Tokens) -> None:
    brought = {"jwk": public(OTHER_RSA), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/", "kid": "one"}
    token = jwt.encode(CLAIMS, OTHER_RSA, "RS256", headers=brought)
    assert refusal(tokens, token) == "TOKEN_INVALID"


@pytest.mark.parametrize("kid", ["two", "", "../one", "one\0"])
async def test_a_token_of_a_key_that_is_not_known_is_refused(tokens: Tokens, kid: str) -> None:
    assert refusal(tokens, issue(kid=kid)) == "TOKEN_INVALID"


async def test_a_token_need_not_name_the_only_key(tokens: Tokens) -> None:
    assert tokens.tenant_of(issue(kid=None)) == "acme"


async def test_a_token_must_name_one_of_several_keys(tmp_path: Path) -> None:
    jwks = publish(tmp_path / "two.json", public(RSA, kid="one"), public(OTHER_RSA, kid="two"))
    tokens = await Tokens.open(jwks, ISSUER)
    assert tokens.tenant_of(issue(OTHER_RSA, kid="two")) == "acme"
    assert refusal(tokens, issue(OTHER_RSA, kid="one")) == "TOKEN_INVALID"
    assert refusal(tokens, issue(kid=None)) == "TOKEN_INVALID"


async def test_an_expired_token_is_told_so(tokens: Tokens) -> None:
    assert refusal(tokens, issue(lasts_s=-31)) == "TOKEN_EXPIRED"
    assert tokens.tenant_of(issue(lasts_s=-20)) == "acme", "clocks differ"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": "soon"},
        {"aud": None},
        {"aud": "somebody-else"},
        {"aud": ["a", "b"]},
        {"nbf": time.time() + 3600},
        {"sub": None},
        {"sub": "not a name"},
        {"sub": "a:b"},
        {"sub": ""},
        {"sub": "a" * 65},
    ],
)
async def test_a_token_that_does_not_say_what_it_must_is_refused(tokens: Tokens, claims: dict[str, Any]) -> None:
    assert refusal(tokens, issue(**claims)) == "TOKEN_INVALID"


async def test_one_of_several_audiences_may_be_us(tokens: Tokens) -> None:
    assert tokens.tenant_of(issue(aud=["other", "millrace"])) == "acme"


async def test_a_claim_of_another_name_may_name_the_tenant(jwks: Path) -> None:
    tokens = await Tokens.open(jwks, Issuer(algorithm="RS256", audience="millrace", tenant_claim="org"))
    assert tokens.tenant_of(issue(sub="somebody", org="blue")) == "blue"
    assert refusal(tokens, issue(sub="acme")) == "TOKEN_INVALID"
    assert refusal(tokens, issue(org=["blue"])) == "TOKEN_INVALID"


async def test_only_the_issuer_of_the_settings_is_taken(jwks: Path) -> None:
    tokens = await Tokens.open(jwks, Issuer(algorithm="RS256", audience="millrace", name="https://issuer.example"))
    assert tokens.tenant_of(issue(iss="https://issuer.example")) == "acme"
    for wrong in ("https://issuer.example.evil", "", None):
        assert refusal(tokens, issue(iss=wrong)) == "TOKEN_INVALID"


@pytest.mark.parametrize("text", ["", "a.b.c", "...", "eyJhbGciOiJSUzI1NiJ9..", "x" * 20_000, "ü.ü.ü", "\0", "a b c"])
async def test_what_is_no_token_is_refused(tokens: Tokens, text: str) -> None:
    assert refusal(tokens, text) == "TOKEN_INVALID"


async def test_no_byte_of_a_token_can_be_changed(tokens: Tokens) -> None:
    token = issue()
    for at in range(0, len(token), 7):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        assert refusal(tokens, changed) == "TOKEN_INVALID"


async def test_a_token_is_checked_once_for_many_calls(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    token = issue()
    tokens.tenant_of(token)
    monkeypatch.setattr(jwt, "decode", lambda *_, **__: pytest.fail("checked again"))
    assert tokens.tenant_of(token) == "acme"


async def test_what_was_checked_is_not_remembered_beyond_its_time(tmp_path: Path) -> None:
    jwks = publish(tmp_path / "jwks.json", public(RSA, kid="one"))
    passed = 0.0
    opened = await Tokens.open(jwks, ISSUER)
    tokens = Tokens(opened._keys, ISSUER, lambda: time.time() + passed)
    token = issue(lasts_s=-10)
    assert tokens.tenant_of(token) == "acme"
    assert tokens._remembered(token) == ""
    lasting = issue()
    assert tokens.tenant_of(lasting) == tokens._remembered(lasting) == "acme"
    passed = 61.0
    assert tokens._remembered(lasting) == ""


async def test_what_is_remembered_is_bounded(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    for number in range(5):
        tokens.tenant_of(issue(jti=str(number)))
    assert len(tokens._checked) == 3


async def test_a_token_of_a_key_that_was_taken_away_stops(jwks: Path, tokens: Tokens) -> None:
    running = asyncio.create_task(tokens.run())
    old, new = issue(), issue(OTHER_RSA, kid="two")
    assert tokens.tenant_of(old) == "acme"
    publish(jwks, public(OTHER_RSA, kid="two"))

    def is_taken() -> bool:
        try:
            return tokens.tenant_of(new) == "acme"
        except Denied:
            return False

    await eventually(is_taken, 2.0)
    assert refusal(tokens, old) == "TOKEN_INVALID"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def private(key: Private) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(key))
    return told


SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("[]", "no JWKS"),
        ("{", "no JWKS"),
        ('{"keys": 3}', "no JWKS"),
        ('{"keys": [3]}', "no JWKS"),
        ('{"keys": []}', "no key for RS256"),
        (json.dumps({"keys": [public(EC, "ES256")]}), "no key for RS256"),
        (json.dumps({"keys": [public(RSA, use="enc")]}), "no key for RS256"),
        (json.dumps({"keys": [public(RSA, alg="PS256")]}), "no key for RS256"),
        (json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}), "no key for RS256"),
        (json.dumps({"keys": [{"kty": "RSA", "kid": "bad", "n": "!", "e": "AQAB"}]}), "'bad' cannot be read"),
        (json.dumps({"keys": [private(RSA)]}), "private"),
        (json.dumps({"keys": [public(SMALL)]}), "2048 bits"),
    ],
)
def test_a_file_of_keys_that_does_not_do_is_refused_with_a_sentence(keys: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_keys("RS256", keys)


def test_the_keys_of_other_algorithms_may_stand_in_the_same_file() -> None:
    keys = [public(EC, "ES256", kid="a"), public(RSA, kid="b"), {"kty": "unheard of"}]
    assert list(parse_keys("RS256", json.dumps({"keys": keys}))) == ["b"]


def test_a_key_in_pem_is_no_jwks() -> None:
    text = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    with pytest.raises(ValueError, match="no JWKS"):
        parse_keys("RS256", text)
