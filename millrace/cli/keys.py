"""`millrace keys`: the file of tenants and their API keys that frontends read."""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millrace.queue.keys import TENANT_PATTERN
from millrace.tenants import ANY, PLAIN, Key, Policy, Tenant, Tenants, make_key, make_policy, now

MODE = 0o600
UNITS = {"m": 60, "h": 3_600, "d": 86_400, "y": 365 * 86_400}
LARGEST_Y = 100
UNSET = ("none", "")
"""What an option is given that takes a bound away."""
keys_app = typer.Typer(
    help="Tenants and their API keys: a YAML file that frontends follow (MILLRACE_API_KEYS).",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
File = Annotated[
    Path, typer.Option("--file", "-f", envvar="MILLRACE_API_KEYS", help="The file; made where there is none.")
]
TenantName = Annotated[str, typer.Option("--tenant", "-t", help="Whose key it is.")]


@keys_app.command()
def create(
    file: File,
    tenant: TenantName,
    expires: Annotated[
        str | None,
        typer.Option(metavar="90d", help="How long it is good: minutes, hours, days, years. Unset: for ever."),
    ] = None,
    note: Annotated[str, typer.Option(help="What it is for, or who has it.")] = "",
) -> None:
    """Make a key, and print it: the only time that it can be seen. The file gets its hash.

    [bold]millrace keys create --file keys.yaml --tenant acme --expires 90d --note 'nightly evaluation'[/bold]
    [bold]export MILLRACE_API_KEY=$(millrace keys create -f keys.yaml -t acme)[/bold]
    """
    with reporting(), editing(file) as book:
        _check_tenant(tenant)
        text, key = make_key(lasts=_lasts(expires), note=note, now=now())
        book.tenants = book.tenants.with_key(tenant, key)
    until = f"until {_day(key.expires)}" if key.expires else "for ever"
    typer.echo(f"key {key.id} of tenant {tenant}, good {until}; it is shown this once:", err=True)
    typer.echo(text)


@keys_app.command("list")
def list_keys(
    file: File, tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Unset: all.")] = None
) -> None:
    """List tenants, what they may do, and their keys.

    [bold]millrace keys list --file keys.yaml[/bold]
    """
    with reporting():
        tenants = _read(file)
    console = Console(highlight=False)
    for name, known in tenants.by_name.items():
        if tenant in (None, name):
            console.print(f"[bold]{name}[/bold]  {escape(_describe(known.policy))}")
            console.print(_table(known.keys) if known.keys else "  no keys")


@keys_app.command()
def revoke(
    file: File, key: Annotated[str, typer.Argument(metavar="ID", help="As `millrace keys list` has it.")]
) -> None:
    """Take a key away: running frontends refuse it within a second or two of the file's change.

    [bold]millrace keys revoke 5f0c2d9e41 --file keys.yaml[/bold]
    """
    with reporting(), editing(file, must_exist=True) as book:
        if key not in book.tenants.by_key:
            raise ValueError(f"there is no key {key} in {file}: `millrace keys list` shows them")
        tenant, known = book.tenants.by_key[key]
        book.tenants = book.tenants.with_key(tenant, known if known.revoked else replace(known, revoked=now()))
    typer.echo(f"key {key} of tenant {tenant} is revoked", err=True)


@keys_app.command("tenant")
def set_tenant(
    file: File,
    name: Annotated[str, typer.Argument(metavar="TENANT", help="Its name; * is all that are not named.")],
    models: Annotated[str | None, typer.Option(metavar="A,B*", help="Patterns of models' names.")] = None,
    priority: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The highest: batch, standard, interactive.")
    ] = None,
    admin: Annotated[
        bool | None,
        typer.Option("--admin/--no-admin", help="May load and unload, list workers, change logs and traces."),
    ] = None,
    weight: Annotated[str | None, typer.Option(metavar="N", help="Its share of a busy fleet; others have 1.")] = None,
    requests_per_minute: Annotated[str | None, typer.Option(metavar="N", help="Over the whole fleet.")] = None,
    tokens_per_minute: Annotated[str | None, typer.Option(metavar="N", help="Tokens, or rows of tensors.")] = None,
    concurrent_jobs: Annotated[str | None, typer.Option(metavar="N", help="Jobs that wait or run.")] = None,
    max_request_bytes: Annotated[str | None, typer.Option(metavar="N", help="The largest request.")] = None,
) -> None:
    """Say what a tenant may do; what is not given stays as it is, and none takes a bound away.

    [bold]millrace keys tenant acme -f keys.yaml --models 'pycode,embed-*' --priority standard[/bold]
    [bold]millrace keys tenant acme -f keys.yaml --requests-per-minute 600 --concurrent-jobs 50[/bold]
    [bold]millrace keys tenant acme -f keys.yaml --requests-per-minute none[/bold]
    [bold]millrace keys tenant ops -f keys.yaml --admin[/bold]
    """
    numbers = {
        "weight": weight,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_jobs": concurrent_jobs,
        "max_request_bytes": max_request_bytes,
    }
    with reporting(), editing(file) as book:
        _check_tenant(name, or_any=True)
        given: dict[str, Any] = {field: _number(field, text) for field, text in numbers.items() if text is not None}
        if models is not None:
            given["models"] = [part.strip() for part in models.split(",")] if models not in UNSET else None
        if priority is not None:
            given["priority"] = priority if priority not in UNSET else None
        if admin is not None:
            given["admin"] = admin
        known = book.tenants.by_name.get(name, Tenant())
        policy = _changed(known.policy, given)
        book.tenants = book.tenants.with_tenant(name, replace(known, policy=policy))
    typer.echo(f"{name}: {_describe(policy)}", err=True)


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Book:
    """The file's content while it is changed."""

    def __init__(self, tenants: Tenants) -> None:
        self.tenants = tenants


@contextmanager
def editing(file: Path, *, must_exist: bool = False) -> Iterator[Book]:
    """One at a time, behind a lock on a file beside it; the new content takes the file's place whole, or not at all."""
    if must_exist and not file.exists():
        raise ValueError(f"there is no file {file}")
    target = file.resolve()
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        book = Book(_read(target) if target.exists() else Tenants())
        yield book
        _replace(target, book.tenants.write())


def _read(file: Path) -> Tenants:
    try:
        return Tenants.parse(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _replace(file: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    fresh = Path(name)
    try:
        with os.fdopen(handle, "w") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        fresh.chmod(MODE)
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


@contextmanager
def reporting() -> Iterator[None]:
    """What is wrong is said in a sentence; exit status 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        problem = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        typer.echo(f"millrace: {problem}", err=True)
        raise typer.Exit(2) from None


# ── what is given, and what is shown ─────────────────────────────────────────────────────────────────────────────────


def _check_tenant(name: str, *, or_any: bool = False) -> None:
    if not TENANT_PATTERN.fullmatch(name) and not (or_any and name == ANY):
        raise ValueError(f"a tenant's name must match {TENANT_PATTERN.pattern}, not {name!r}")


def _lasts(text: str | None) -> timedelta | None:
    if text is None:
        return None
    form = re.fullmatch(r"([0-9]{1,9})([mhdy])", text.strip())
    seconds = int(form[1]) * UNITS[form[2]] if form else 0
    if not 0 < seconds <= LARGEST_Y * UNITS["y"]:
        raise ValueError(f"--expires must be as 30m, 12h, 90d or 1y, not {text!r}")
    return timedelta(seconds=seconds)


def _number(field: str, text: str) -> int | float | None:
    if text in UNSET:
        return None
    try:
        return float(text) if field == "weight" else int(text)
    except ValueError:
        raise ValueError(f"--{field.replace('_', '-')} must be a number, or none, not {text!r}") from None


def _changed(policy: Policy, given: dict[str, Any]) -> Policy:
    """What is None goes back to its default."""
    fresh = make_policy("the tenant", given)
    return replace(policy, **{name: getattr(fresh if given[name] is not None else PLAIN, name) for name in given})


def _describe(policy: Policy) -> str:
    bounds = (
        (policy.requests_per_minute, "requests/min"),
        (policy.tokens_per_minute, "tokens/min"),
        (policy.concurrent_jobs, "jobs at a time"),
        (policy.max_request_bytes, "bytes a request"),
    )
    parts = [
        f"models {','.join(policy.models)}",
        f"up to {policy.priority.name.lower()}",
        *(f"{bound} {unit}" for bound, unit in bounds if bound is not None),
        *([f"weight {policy.weight:g}"] if policy.weight is not None else []),
        *(["admin"] if policy.admin else []),
    ]
    return ", ".join(parts)


def _table(keys: tuple[Key, ...]) -> Table:
    table = Table("ID", "STATE", "CREATED", "EXPIRES", "NOTE", box=SIMPLE, pad_edge=False)
    for key in keys:
        table.add_row(key.id, key.state(now()), _day(key.created), _day(key.expires), escape(key.note))
    return table


def _day(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC") if time is not None else "never"
