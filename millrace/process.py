"""What the `__main__` of every service does: settings, logging, event loop, exit status."""

import argparse
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog
import uvloop
from pydantic import ValidationError

from millrace.settings import Settings, describe
from millrace.telemetry import configure_logging

S = TypeVar("S", bound=Settings)
FAILED, REFUSED = 1, 2


def run(name: str, description: str, settings: type[S], serve: Callable[[S], Coroutine[Any, Any, None]]) -> int:
    """Runs `serve` with settings from the environment; answers the exit status.

    A ValueError says that the process cannot serve as it was told to; an exception group is what ended its tasks.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{name}",
        description=description,
        epilog=describe(settings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        chosen = settings()
    except ValidationError as error:
        print(f"settings: {error}", file=sys.stderr)
        return REFUSED
    configure_logging(chosen.log_format, chosen.log_level)
    log = structlog.get_logger()
    log.info(f"{name}.starting", **chosen.redacted())
    try:
        uvloop.run(serve(chosen))
    except ValueError as error:
        log.error(f"{name}.refused", error=str(error))
        return REFUSED
    except ExceptionGroup as group:
        for failure in group.exceptions:
            log.error(f"{name}.failed", error=str(failure), exc_info=failure)
        return FAILED
    return 0
