"""`millrace keys`: makes, shows and takes away what opens the gate."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from millrace.cli.app import app
from millrace.queue import Priority
from millrace.tenants import Policy, Tenants, now
from millrace.tenants.keys import KEY_PATTERN

RUN = CliRunner()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def keys(*arguments: str) -> tuple[int, str, str]:
    """Its exit status, standard output and standard error."""
    result = RUN.invoke(app, ["keys", *arguments], env={"COLUMNS": "160"})
    return result.exit_code, result.stdout, result.stderr


def read(file: Path) -> Tenants:
    return Tenants.parse(file.read_text())


def make(file: Path, *options: str) -> str:
    status, text, error = keys("create", "-f", str(file), "-t", "acme", *options)
    assert status == 0, error
    return text.strip()


def test_a_key_is_shown_once_and_kept_as_a_hash(file: Path) -> None:
    key = make(file, "--note", "nightly")
    form = KEY_PATTERN.fullmatch(key)
    assert form is not None
    assert form[2] not in file.read_text()
    tenant, known = read(file).by_key[form[1]]
    assert (tenant, known.note, known.expires, known.fits(key)) == ("acme", "nightly", None, True)
    assert form[2] not in keys("list", "-f", str(file))[1]


def test_nobody_else_may_read_the_file(file: Path) -> None:
    make(file)
    file.chmod(0o644)
    make(file)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_key_is_good_for_as_long_as_is_said(file: Path) -> None:
    make(file, "--expires", "90d")
    ((_, key),) = read(file).by_key.values()
    assert key.expires == key.created + timedelta(days=90)
    assert key.state(now() + timedelta(days=89)) == "active"
    assert key.state(now() + timedelta(days=91)) == "expired"


@pytest.mark.parametrize("expires", ["0d", "soon", "90", "-1d", "101y", "999999999y", ""])
def test_a_time_that_is_none_is_refused_and_leaves_the_file(file: Path, expires: str) -> None:
    status, _, error = keys("create", "-f", str(file), "-t", "acme", "--expires", expires)
    assert (status, "--expires must be as" in error) == (2, True)
    assert not file.exists()


def test_a_key_is_revoked_by_its_id(file: Path) -> None:
    first, second = make(file), make(file)
    assert keys("revoke", first.split("_")[1], "-f", str(file))[0] == 0
    states = {key.id: key.state(now()) for _, key in read(file).by_key.values()}
    assert states == {first.split("_")[1]: "revoked", second.split("_")[1]: "active"}
    assert re.search("revoked", keys("list", "-f", str(file))[1])


def test_a_key_that_is_not_there_cannot_be_revoked(file: Path) -> None:
    make(file)
    status, _, error = keys("revoke", "0123456789", "-f", str(file))
    assert (status, "there is no key 0123456789" in error) == (2, True)
    assert keys("revoke", "0123456789", "-f", str(file) + "x")[0] == 2


def test_what_a_tenant_may_do_is_changed_piece_by_piece(file: Path) -> None:
    make(file)
    assert keys("tenant", "acme", "-f", str(file), "--models", "pycode, embed-*", "--priority", "standard")[0] == 0
    bounds = ("--requests-per-minute", "600", "--concurrent-jobs", "5", "--max-request-bytes", "1000", "--weight", "2")
    assert keys("tenant", "acme", "-f", str(file), *bounds)[0] == 0
    assert read(file).policy("acme") == Policy(
        models=("pycode", "embed-*"),
        priority=Priority.STANDARD,
        requests_per_minute=600,
        concurrent_jobs=5,
        max_request_bytes=1000,
        weight=2.0,
    )
    assert len(read(file).by_key) == 1
    unset = ("--models", "none", "--priority", "none", "--requests-per-minute", "none", "--admin", "--weight", "none")
    assert keys("tenant", "acme", "-f", str(file), *unset)[0] == 0
    assert read(file).policy("acme") == Policy(admin=True, concurrent_jobs=5, max_request_bytes=1000)


def test_those_that_are_not_named_have_a_policy_too(file: Path) -> None:
    assert keys("tenant", "*", "-f", str(file), "--models", "pycode")[0] == 0
    assert read(file).policy("anybody").models == ("pycode",)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("acme", "--priority", "highest"), "must be batch, standard or interactive"),
        (("acme", "--requests-per-minute", "0"), "must be a whole number, 1 or more"),
        (("acme", "--requests-per-minute", "many"), "must be a number, or none"),
        (("acme", "--weight", "-1"), "must be a number, 0.001 to 1000"),
        (("acme", "--models", "a b"), "patterns"),
        (("a:b",), "a tenant's name must match"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(file: Path, options: tuple[str, ...], problem: str) -> None:
    status, _, error = keys("tenant", *options, "-f", str(file))
    assert (status, problem in error) == (2, True), error


def test_a_file_that_is_broken_is_left_as_it_is(file: Path) -> None:
    file.write_text("tenants: [")
    for arguments in (("create", "-t", "acme"), ("list",), ("revoke", "0123456789"), ("tenant", "acme")):
        status, _, error = keys(*arguments, "-f", str(file))
        assert (status, f"{file}: is not YAML" in error) == (2, True)
    assert file.read_text() == "tenants: ["


def test_a_link_to_the_file_stays_a_link(file: Path, tmp_path: Path) -> None:
    make(file)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    make(link)
    assert link.is_symlink()
    assert len(read(file).by_key) == 2


def test_two_that_change_the_file_at_once_do_not_lose_each_others_keys(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: _make_apart(file), range(8)))
    assert len(read(file).by_key) == len(set(made)) == 8
    assert [name for name in os.listdir(file.parent) if "lock" not in name] == [file.name]


def _make_apart(file: Path) -> str:
    """Without the runner, which changes standard output for all threads."""
    from millrace.cli.keys import editing
    from millrace.tenants import make_key

    with editing(file) as book:
        text, key = make_key(lasts=None, note="", now=now())
        book.tenants = book.tenants.with_key("acme", key)
    return text
