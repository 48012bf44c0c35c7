"""`millrace top`: reading → rows → view, live or once."""

from millrace.cli.top.command import top

__all__ = ["top"]
