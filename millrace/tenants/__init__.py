"""Tenants: who they are, how their callers prove it, and what they may do.

    policy  what a tenant may do
    keys    API keys
    file    the YAML file that holds both, which `millrace keys` writes and frontends follow

All of it is off where a frontend has no such file and no JWKS: its gate is open.
"""

from millrace.tenants.file import Tenant, Tenants
from millrace.tenants.keys import Key, hash_of, make_key, now
from millrace.tenants.policy import ANY, EVERYTHING, PLAIN, Policy, make_policy

__all__ = [
    "ANY",
    "EVERYTHING",
    "PLAIN",
    "Key",
    "Policy",
    "Tenant",
    "Tenants",
    "hash_of",
    "make_key",
    "make_policy",
    "now",
]
