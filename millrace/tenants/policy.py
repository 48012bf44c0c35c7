"""What a tenant may do."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from millrace.errors import Code, Denied, InvalidRequest, Violation
from millrace.queue.quota import Quota
from millrace.queue.types import Priority

ANY = "*"
"""Every model; and in the place of a tenant's name, every tenant that is not named."""
MODEL_PATTERN = re.compile(r"[A-Za-z0-9_./*?\[\]!-]{1,200}")
DEFAULT_PRIORITY = Priority.STANDARD
"""Of requests that ask for none."""
LARGEST = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a tenant may do. A bound that is None is none."""

    models: tuple[str, ...] = (ANY,)
    priority: Priority = Priority.INTERACTIVE
    """The highest."""
    admin: bool = False
    weight: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Tokens, or rows of models that take tensors."""
    concurrent_jobs: int | None = None
    max_request_bytes: int | None = None

    @property
    def quota(self) -> Quota | None:
        """What is counted over the fleet; None where nothing is."""
        bounds = (self.requests_per_minute, self.tokens_per_minute, self.concurrent_jobs)
        if not any(bounds):
            return None
        return Quota(requests_per_minute=bounds[0], tokens_per_minute=bounds[1], concurrent_jobs=bounds[2])

    def require_size(self, size: int) -> None:
        """Raises InvalidRequest where a request of so many bytes is too large."""
        if self.max_request_bytes is not None and size > self.max_request_bytes:
            text = f"the request has {size} bytes; this tenant's may have {self.max_request_bytes}"
            raise InvalidRequest([Violation("", text)], reason="REQUEST_TOO_LARGE")

    def allows(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def require_model(self, model: str) -> None:
        """Raises Denied, whether or not there is such a model."""
        if not self.allows(model):
            raise Denied(
                Code.PERMISSION_DENIED, f"this tenant may not use model {model[:64]}", reason="MODEL_NOT_ALLOWED"
            )

    def require_admin(self) -> None:
        """Raises Denied."""
        if not self.admin:
            raise Denied(Code.PERMISSION_DENIED, "only an administrator may do this", reason="ADMIN_REQUIRED")

    def grant(self, priority: Priority) -> Priority:
        """The priority that a request gets which asks for this one: the default is lowered to what is allowed. Raises
        Denied where a higher one was asked for."""
        if priority <= self.priority:
            return priority
        if priority == DEFAULT_PRIORITY:
            return self.priority
        text = f"this tenant's jobs may be {self.priority.name.lower()} at most, not {priority.name.lower()}"
        raise Denied(Code.PERMISSION_DENIED, text, reason="PRIORITY_NOT_ALLOWED")


PLAIN, EVERYTHING = Policy(), Policy(admin=True)
"""Of tenants of whom nothing is said; and where everybody is let in."""


POLICY_FIELDS = tuple(known.name for known in fields(Policy))


def make_policy(where: str, values: Mapping[str, Any]) -> Policy:
    """Of what stands in the file. Raises ValueError that begins with `where`."""
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None:
            try:
                checked[name] = _check(name, value)
            except ValueError as error:
                raise ValueError(f"{where}: {name} {error}, not {value!r}") from None
    return Policy(**checked)


def _check(name: str, value: Any) -> Any:
    if name == "models":
        patterns = value if isinstance(value, list) else [None]
        if not all(isinstance(one, str) and MODEL_PATTERN.fullmatch(one) for one in patterns):
            raise ValueError("must be a list of patterns of models' names")
        return tuple(value)
    if name == "priority":
        if not isinstance(value, str) or value.upper() not in Priority.__members__:
            raise ValueError("must be batch, standard or interactive")
        return Priority[value.upper()]
    if name == "admin":
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value
    if name == "weight":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= 1000:
            raise ValueError("must be a number, 0.001 to 1000")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
        raise ValueError("must be a whole number, 1 or more")
    return value


def tell_policy(policy: Policy) -> dict[str, Any]:
    """What differs from a plain policy."""
    told = {name: value for name, value in asdict(policy).items() if value != getattr(PLAIN, name)}
    if "models" in told:
        told["models"] = list(policy.models)
    if "priority" in told:
        told["priority"] = policy.priority.name.lower()
    return told
