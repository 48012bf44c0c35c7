"""The file of tenants: what each may do, and the keys that its callers show.

    tenants:
      acme:
        models: [pycode, embed-*]        # patterns of names; unset: all
        priority: standard               # the highest that is granted; unset: interactive
        admin: false                     # load and unload models, list workers, change logs and traces, statistics
        weight: 2                        # its share of a busy fleet; unset: 1
        requests_per_minute: 600         # over the whole fleet; unset: no bound, as for those that follow
        tokens_per_minute: 200000
        concurrent_jobs: 50
        max_request_bytes: 1048576
        keys:
          - {id: 5f0c2d9e41, hash: sha256:…, created: 2026-11-26T12:00:00Z, expires: …, note: …, revoked: …}
      "*": {models: [pycode]}            # of tenants that are not named: those that a JWT brings

`millrace keys` writes it anew as a whole: comments in it are lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import yaml

from millrace.queue.keys import TENANT_PATTERN
from millrace.tenants.keys import KEY_FIELDS, Key, read_key, tell_key
from millrace.tenants.policy import ANY, PLAIN, POLICY_FIELDS, Policy, make_policy, tell_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    policy: Policy = PLAIN
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Tenants:
    """The whole file."""

    by_name: Mapping[str, Tenant] = field(default_factory=dict)
    by_key: Mapping[str, tuple[str, Key]] = field(init=False)
    """By its id: whose it is, and the key."""

    def __post_init__(self) -> None:
        found: dict[str, tuple[str, Key]] = {}
        for name, tenant in self.by_name.items():
            for key in tenant.keys:
                if key.id in found:
                    raise ValueError(f"tenant {name}: key {key.id} stands there twice")
                found[key.id] = (name, key)
        object.__setattr__(self, "by_key", found)

    def policy(self, tenant: str) -> Policy:
        """Its own, or that of those who are not named."""
        found = self.by_name.get(tenant) or self.by_name.get(ANY)
        return found.policy if found is not None else PLAIN

    def with_tenant(self, name: str, tenant: Tenant) -> "Tenants":
        return Tenants({**self.by_name, name: tenant})

    def with_key(self, name: str, key: Key) -> "Tenants":
        """Adds the key, or replaces the one of its id."""
        tenant = self.by_name.get(name, Tenant())
        keys = {known.id: known for known in tenant.keys} | {key.id: key}
        return self.with_tenant(name, replace(tenant, keys=tuple(keys.values())))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with a sentence that says where the file is wrong."""
        try:
            told = yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise ValueError(f"is not YAML: {_where(error)}") from None
        told = _mapping("the file", told, ("tenants",))
        if "tenants" not in told:
            raise ValueError("has no tenants: where there are none, say tenants: {}")
        named = _mapping("tenants", told.get("tenants") or {})
        return cls({name: _tenant(name, value or {}) for name, value in named.items()})

    def write(self) -> str:
        """The file's text."""
        told = {name: tell_policy(tenant.policy) | _tell_keys(tenant) for name, tenant in self.by_name.items()}
        return yaml.safe_dump({"tenants": told}, sort_keys=False, allow_unicode=True, width=200)


class _Loader(yaml.SafeLoader):
    """YAML's own reader takes the last of two equal keys of a mapping: somebody's rights would depend on it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _tenant(name: object, told: object) -> Tenant:
    if name != ANY and not (isinstance(name, str) and TENANT_PATTERN.fullmatch(name)):
        raise ValueError(f"tenant {name!r}: its name must match {TENANT_PATTERN.pattern}, or be {ANY}")
    where = f"tenant {name}"
    values = dict(_mapping(where, told, (*POLICY_FIELDS, "keys")))
    keys = values.pop("keys", None) or []
    if not isinstance(keys, list):
        raise ValueError(f"{where}: keys must be a list")
    if keys and name == ANY:
        raise ValueError(f"{where}: nobody's keys cannot stand here, only a policy")
    return Tenant(policy=make_policy(where, values), keys=tuple(_read(where, key) for key in keys))


def _read(where: str, told: object) -> Key:
    return read_key(where, _mapping(f"{where}: a key", told, KEY_FIELDS))


def _mapping(where: str, told: object, known: tuple[str, ...] | None = None) -> Mapping[Any, Any]:
    if not isinstance(told, dict):
        raise ValueError(f"{where} must be a mapping, not {type(told).__name__}")
    if known is not None and (unknown := [name for name in told if name not in known]):
        raise ValueError(f"{where}: {unknown[0]!r} is not known; {', '.join(known)} are")
    return told


def _where(error: yaml.YAMLError) -> str:
    """Without the text that stands there."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error)
    return f"line {error.problem_mark.line + 1}: {error.problem}"


def _tell_keys(tenant: Tenant) -> dict[str, Any]:
    return {"keys": [dict(tell_key(key)) for key in tenant.keys]} if tenant.keys else {}
