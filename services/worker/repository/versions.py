"""Which versions of a model are served: the policy in NAME/model.yaml, beside the versions' folders.

versions: {latest: 2}               the two highest numbers
versions: {specific: [1, 3]}        those
versions: {all: true}               every one, as where there is no such file
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from services.worker import untrusted
from services.worker.repository.model import Model
from services.worker.repository.model_file import NAME, AtLeastOne, Frozen, problems

POLICY_FILE = "model.yaml"


def _written(value: object) -> object:
    """YAML reads 1 as a number, and a version is a name."""
    return str(value) if type(value) is int else value


Version = Annotated[str, BeforeValidator(_written), Field(pattern=NAME)]


class Policy(Frozen):
    """One of the three."""

    all: Literal[True] | None = None
    latest: AtLeastOne | None = None
    specific: Annotated[list[Version], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Policy":
        if len(self.model_fields_set) != 1 or (self.all, self.latest, self.specific) == (None, None, None):
            raise ValueError("name one of all, latest and specific")
        return self


ALL = Policy(all=True)


class _File(Frozen):
    versions: Policy = ALL


def read_policy(name: Path) -> Policy:
    """Of the model whose versions lie in the folder `name`. Raises ValueError where its file is not in order."""
    if name.is_symlink():
        raise ValueError(f"{name.name} is a symbolic link")
    if not untrusted.plain_file(name / POLICY_FILE):
        return ALL
    try:
        return _File.model_validate(untrusted.read_yaml(name / POLICY_FILE)).versions
    except ValidationError as error:
        raise ValueError(f"{name.name}/{POLICY_FILE}: {problems(error)}") from None


def order(version: str) -> tuple[bool, int, str]:
    """Sorts numbers before other names, and in their order."""
    number = int(version) if _is_number(version) else None
    return number is None, number or 0, version


def select(models: Sequence[Model], policy: Policy) -> list[Model]:
    """Those versions of one model that are to be served. Of versions that are no numbers none is the latest."""
    ordered = sorted(models, key=lambda model: order(model.version))
    if policy.specific is not None:
        return [model for model in ordered if model.version in policy.specific]
    if policy.latest is not None:
        return [model for model in ordered if _is_number(model.version)][-policy.latest :]
    return ordered


def _is_number(version: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", version) is not None
