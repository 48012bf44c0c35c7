"""Which versions are served, whatever happens to their files."""

from pathlib import Path

import pytest

from millrace.queue import Command, Verb
from services.worker.repository.model import Model
from services.worker.repository.model_file import ModelFile
from services.worker.repository.versions import ALL, Policy
from services.worker.serving.targets import Failure, is_wanted, targets

LATEST, SECOND = Policy(latest=1), Policy(specific=["2"])


def version(number: str, digest: str = "as it was") -> Model:
    file = ModelFile(name="line", task="tensor", engine="stub")
    return Model(folder=Path("models/line") / number, version=number, file=file, digest=digest)


def chosen(
    policy: Policy, found: str = "", broken: str = "", failed: str = "", served: str = "", changed: str = ""
) -> dict[str, str]:
    """Each argument has one digit for each version; answers versions and digests."""
    return {
        number: model.digest
        for number, model in targets(
            [version(number, "changed" if number in changed else "as it was") for number in found],
            policy,
            broken=list(broken),
            failed={n: Failure(digest="changed" if n in changed else "as it was", reason="no") for n in failed},
            served={number: version(number) for number in served},
        ).items()
    }


@pytest.mark.parametrize(
    ("policy", "held", "expected"),
    [
        (ALL, {"found": "12"}, "12"),
        (LATEST, {"found": "12", "served": "1"}, "2"),
        (LATEST, {"found": "12", "failed": "2", "served": "1"}, "1"),
        (LATEST, {"found": "12", "failed": "2"}, "1"),
        (LATEST, {"found": "1", "broken": "2", "served": "1"}, "1"),
        (SECOND, {"found": "1", "broken": "2", "served": "1"}, "1"),
        (SECOND, {"found": "12", "failed": "2", "served": "1"}, "1"),
        (SECOND, {"found": "12", "failed": "2"}, ""),
        (ALL, {"found": "1", "served": "12"}, "1"),
        (ALL, {"served": "1"}, ""),
        (ALL, {"broken": "1", "served": "1"}, "1"),
        (LATEST, {"found": "2", "broken": "1", "served": "13"}, "12"),
    ],
)
def test_what_is_served_goes_only_when_what_is_to_come_is_there(
    policy: Policy, held: dict[str, str], expected: str
) -> None:
    assert "".join(sorted(chosen(policy, **held))) == expected


def test_files_that_have_changed_are_to_be_served_as_they_are_now() -> None:
    assert chosen(ALL, found="1", served="1", changed="1") == {"1": "changed"}


def test_files_that_have_changed_and_do_not_load_are_served_as_they_were() -> None:
    assert chosen(ALL, found="1", served="1", changed="1", failed="1") == {"1": "as it was"}


@pytest.mark.parametrize(
    ("verb", "load", "wanted"),
    [
        (None, ("*",), True),
        (None, (), False),
        (None, ("li*", "other"), True),
        (None, ("other",), False),
        (Verb.LOAD, (), True),
        (Verb.UNLOAD, ("*",), False),
    ],
)
def test_the_last_command_counts_and_without_one_the_setting(
    verb: Verb | None, load: tuple[str, ...], wanted: bool
) -> None:
    command = None if verb is None else Command(serial=1, verb=verb, at_ms=0)
    assert is_wanted("line", command, load) is wanted
