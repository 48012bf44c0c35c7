"""The command `millrace`. It needs the extra `cli`."""

import sys


def app() -> None:
    try:
        from millrace.cli.app import app as commands
    except ModuleNotFoundError as error:
        sys.exit(f"the command line needs {error.name}: pip install 'millrace[cli]'")
    commands()
