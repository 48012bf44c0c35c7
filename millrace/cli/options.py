"""Options that several commands have."""

from typing import Annotated

import typer

Model = Annotated[str, typer.Option("--model", "-m", help="The model's name.")]
