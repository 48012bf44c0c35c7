"""Log lines as events: one line each, with the job's id wherever there is one."""

import logging
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger


class Levels:
    """Which levels are written, from now on. The first of structlog's processors: it drops the events of the others."""

    def __init__(self) -> None:
        self.verbose, self.info, self.warning, self.error = False, True, True, True

    def set(self, threshold: int) -> None:
        """This level of `logging`, and those above it."""
        self.verbose, self.info = threshold <= logging.DEBUG, threshold <= logging.INFO
        self.warning, self.error = threshold <= logging.WARNING, threshold <= logging.ERROR

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        shown = {"debug": self.verbose, "info": self.info, "warning": self.warning, "error": self.error}
        if not shown.get(method, True):
            raise structlog.DropEvent
        return event


levels = Levels()
"""Of this process: structlog has one configuration."""


def configure_logging(log_format: str, level: str) -> None:
    """Sends structlog's and the libraries' log lines to standard error, for people ("console") or machines ("json")."""
    levels.set(getattr(logging, level.upper()))
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            levels,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
