"""`millrace load`: loads a service, sweeps it, compares results."""

from millrace.cli.load.commands import load_app

__all__ = ["load_app"]
