"""`millrace redis-acl`: users for Redis that may do no more than they must."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from millrace.queue.acl import Role, user
from millrace.queue.server import read_password

ROLES = (Role.FRONTEND, Role.WORKER, Role.MONITOR)


def redis_acl(
    password_file: Annotated[
        list[str],
        typer.Option(
            metavar="[ROLE=]FILE",
            help="A file with a role's password, once or more for each role; two are both taken while one follows the "
            "other.",
        ),
    ],
    role: Annotated[list[Role] | None, typer.Option(help="Unset: frontend, worker and monitor.")] = None,
    format: Annotated[
        Literal["acl-file", "commands"],
        typer.Option(
            help="acl-file: a whole one (Redis' aclfile), in which the default user is off; commands: for redis-cli, "
            "which change these users only."
        ),
    ] = "acl-file",
) -> None:
    """Print Redis users with the least that each part of a deployment needs; passwords as hashes.

    [bold]millrace redis-acl --role frontend --role worker --password-file frontend=f --password-file worker=w[/bold]
    [bold]millrace redis-acl --role worker --password-file w --format commands | redis-cli[/bold]
    """
    roles = list(dict.fromkeys(role or ROLES))
    try:
        users = [user(each, passwords) for each, passwords in _passwords(roles, password_file).items()]
    except (OSError, ValueError) as error:
        typer.echo(f"millrace: {error}", err=True)
        raise typer.Exit(2) from None
    if format == "acl-file":
        typer.echo("user default off resetkeys resetchannels -@all")
    for each in users:
        typer.echo(f"user {each}" if format == "acl-file" else f"ACL SETUSER {each.replace(' on ', ' reset on ', 1)}")


def _passwords(roles: Sequence[Role], files: Sequence[str]) -> dict[Role, list[str]]:
    """Raises ValueError where a role has none, or a file is for no role, and OSError where it cannot be read."""
    passwords: dict[Role, list[str]] = defaultdict(list)
    for text in files:
        name, named, path = text.partition("=")
        if not named and len(roles) > 1:
            raise ValueError(f"whose password is in {text}? --password-file ROLE=FILE")
        if named and name not in roles:
            raise ValueError(f"{name} is none of the roles {', '.join(roles)}")
        passwords[Role(name) if named else roles[0]].append(read_password(Path(path if named else text)))
    if missing := [role for role in roles if role not in passwords]:
        raise ValueError(f"no password for {', '.join(missing)}: --password-file ROLE=FILE")
    return {role: passwords[role] for role in roles}
