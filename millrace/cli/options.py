"""Options that several commands have."""

from typing import Annotated

import typer

Address = Annotated[
    str, typer.Option("--address", metavar="HOST:PORT[,…]", envvar="MILLRACE_ADDRESS", help="Frontends to call.")
]
Tenant = Annotated[str, typer.Option("--tenant", envvar="MILLRACE_TENANT", help="On whose behalf.")]
Model = Annotated[str, typer.Option("--model", "-m", help="The model's name.")]
