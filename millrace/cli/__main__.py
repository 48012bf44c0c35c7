"""`python -m millrace.cli`: the command `millrace` of this environment."""

from millrace.cli import app

app()
