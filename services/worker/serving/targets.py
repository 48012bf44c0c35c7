"""Which versions of a model are to be served: what its policy chooses of what can be had, and what is served already
where it chooses what cannot."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from millrace.queue import Command, Verb
from services.worker.repository import versions
from services.worker.repository.model import Model
from services.worker.repository.versions import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a version, as its files are, could not be loaded."""

    digest: str
    reason: str
    starved: bool = False
    """For want of memory, which others may give back."""


def is_wanted(name: str, command: Command | None, load: Sequence[str]) -> bool:
    """What the last command about the model says; without one, whether its name matches one of `load`."""
    if command is not None and command.verb is not Verb.LOOK:
        return command.verb is Verb.LOAD
    return any(fnmatchcase(name, pattern) for pattern in load)


def targets(
    found: Sequence[Model],
    policy: Policy,
    *,
    broken: Collection[str],
    failed: Mapping[str, Failure],
    served: Mapping[str, Model],
) -> dict[str, Model]:
    """By version, of one model that is wanted.

    A version that is served stays as it is while its files are not in order, or do not load; and all that are served
    stay while a version that the policy chooses cannot be had. One that was taken out of the repository goes.
    """
    fit = [model for model in found if not _has_failed(model, failed)]
    chosen = versions.select(found, policy)
    kept = dict(served)
    if all(model in fit for model in chosen) and (chosen or not broken):
        kept = {version: model for version, model in served.items() if version in broken}
    return kept | {model.version: model for model in versions.select(fit, policy)}


def _has_failed(model: Model, failed: Mapping[str, Failure]) -> bool:
    failure = failed.get(model.version)
    return failure is not None and failure.digest == model.digest
