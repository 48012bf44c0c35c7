"""The file of tenants, read as people write it."""

from datetime import UTC, datetime, timedelta

import pytest

from millrace.queue import Priority, Quota
from millrace.tenants import Key, Policy, Tenant, Tenants, hash_of, make_key

HASH = "sha256:" + "0" * 64
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_a_file_is_written_as_it_is_read() -> None:
    policy = Policy(models=("a", "b-*"), priority=Priority.BATCH, admin=True, weight=0.5, tokens_per_minute=7)
    _, key = make_key(lasts=timedelta(days=1), note="a: b # ü", now=NOW)
    revoked = Key(id="0123456789", hash=HASH, created=NOW, revoked=NOW)
    tenants = Tenants({"acme": Tenant(policy=policy, keys=(key, revoked)), "*": Tenant()})
    assert Tenants.parse(tenants.write()) == tenants


def test_what_people_write_is_understood() -> None:
    text = f"""
tenants:
  acme:
    models: [pycode]
    concurrent_jobs: 5
    keys:
      - id: 5f0c2d9e41
        hash: {HASH}
        created: 2026-11-26T12:00:00+01:00
        expires: 2027-01-01
  blue:
  "*": {{priority: Batch}}
"""
    tenants = Tenants.parse(text)
    ((owner, key),) = tenants.by_key.values()
    assert (owner, key.created, key.expires) == ("acme", NOW - timedelta(hours=1), datetime(2027, 1, 1, tzinfo=UTC))
    assert tenants.policy("acme").quota == Quota(concurrent_jobs=5)
    assert tenants.policy("blue") == Policy()
    assert tenants.policy("somebody").priority is Priority.BATCH


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be a mapping"),
        ("tenants: [", "not YAML"),
        ("[]", "must be a mapping"),
        ("{}", "has no tenants"),
        ("tenant: {}", "'tenant' is not known; tenants are"),
        ("tenants: [3]", "tenants must be a mapping"),
        ("tenants: {a b: {}}", "tenant 'a b': its name must match"),
        ("tenants: {7: {}}", "tenant 7: its name must match"),
        ("tenants: {a: 3}", "tenant a must be a mapping"),
        ("tenants: {a: {quota: 3}}", "tenant a: 'quota' is not known"),
        ("tenants: {a: {models: pycode}}", "tenant a: models must be a list"),
        ("tenants: {a: {priority: top}}", "tenant a: priority must be batch, standard or interactive, not 'top'"),
        ("tenants: {a: {admin: 1}}", "tenant a: admin must be true or false"),
        ("tenants: {a: {weight: .nan}}", "tenant a: weight must be a number"),
        ("tenants: {a: {weight: true}}", "tenant a: weight must be a number"),
        ("tenants: {a: {requests_per_minute: 0}}", "tenant a: requests_per_minute must be a whole number, 1 or more"),
        ("tenants: {a: {concurrent_jobs: 1.5}}", "tenant a: concurrent_jobs must be a whole number"),
        ("tenants: {a: {keys: {b: c}}}", "tenant a: keys must be a list"),
        ("tenants: {a: {keys: [3]}}", "tenant a: a key must be a mapping"),
        ("tenants: {a: {keys: [{id: '0123456789'}]}}", "tenant a: key '0123456789': has no hash"),
        ("tenants: {a: {keys: [{id: x, hash: h, created: now}]}}", "its id must be 10 hexadecimal"),
        (f"tenants: {{a: {{keys: [{{id: 1234567890, hash: '{HASH}', created: now}}]}}}}", "in quotes"),
        ("tenants: {a: {keys: [{id: '0123456789', hash: mr_x, created: now}]}}", "hash must be sha256:"),
        (f"tenants: {{a: {{keys: [{{id: '0123456789', hash: '{HASH}', created: soon}}]}}}}", "created must be a time"),
        (f"tenants: {{'*': {{keys: [{{id: '0123456789', hash: '{HASH}', created: 2026-01-01}}]}}}}", "only a policy"),
        ("tenants: !!python/object/apply:os.system [ls]", "not YAML"),
        ("tenants:\n  a: {admin: false}\n  b: {}\n  a: {admin: true}", "line 4: a stands there twice"),
        ("tenants: {a: {admin: false, weight: 1, admin: true}}", "line 1: admin stands there twice"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        Tenants.parse(text)
    assert len(str(refused.value)) < 500


def test_a_key_may_not_stand_there_twice() -> None:
    key = f"{{id: '0123456789', hash: '{HASH}', created: 2026-01-01}}"
    with pytest.raises(ValueError, match="tenant b: key 0123456789 stands there twice"):
        Tenants.parse(f"tenants: {{a: {{keys: [{key}]}}, b: {{keys: [{key}]}}}}")


def test_a_model_is_allowed_by_any_of_the_patterns() -> None:
    policy = Policy(models=("pycode", "embed-*", "org/*"))
    allowed = {name: policy.allows(name) for name in ("pycode", "pycode2", "embed-de", "Embed-de", "org/a/b", "")}
    assert allowed == {
        "pycode": True, "pycode2": False, "embed-de": True, "Embed-de": False, "org/a/b": True, "": False,
    }  # fmt: skip
    assert Policy().allows("anything")
    assert not Policy(models=()).allows("anything")


def test_two_keys_are_never_alike() -> None:
    made = [make_key(lasts=None, note="", now=NOW) for _ in range(100)]
    assert len({text for text, _ in made}) == len({key.id for _, key in made}) == 100
    assert all(key.fits(text) and key.hash == hash_of(text) for text, key in made)
