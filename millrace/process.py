"""What the `__main__` of every service does: settings, logging, event loop, exit status."""

import argparse
import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog
import uvloop
from pydantic import ValidationError

from millrace import tracing
from millrace.settings import Settings
from millrace.telemetry import configure_logging

S = TypeVar("S", bound=Settings)
FAILED, REFUSED = 1, 2


def run(name: str, description: str, settings: type[S], serve: Callable[[S], Coroutine[Any, Any, None]]) -> int:
    """Runs `serve` with settings from command line and environment; answers the exit status.

    A ValueError says that the process cannot serve as it was told to; an exception group is what ended its tasks.
    """
    # Until `serve` has its own: as process 1 of a container a process without a handler would not hear it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        chosen = settings(**_arguments(name, description, settings))
    except ValidationError as error:
        for problem in error.errors():
            flag = "--" + str(problem["loc"][0]).replace("_", "-")
            print(f"{name}: {flag}: {problem['msg']}, not {problem['input']!r}", file=sys.stderr)
        return REFUSED
    configure_logging(chosen.log_format, chosen.log_level, log_prompts=chosen.log_prompts)
    log = structlog.get_logger()
    log.info(f"{name}.starting", **chosen.redacted())
    _keep_what_is_loaded()
    instance = str(chosen.model_dump()[f"{name}_id"])
    try:
        with tracing.sending(f"millrace-{name}", instance, chosen.otlp_endpoint, chosen.trace_ratio):
            uvloop.run(serve(chosen))
    except ValueError as error:
        log.error(f"{name}.refused", error=str(error))
        return REFUSED
    except ExceptionGroup as group:
        for failure in group.exceptions:
            log.error(f"{name}.failed", error=str(failure), exc_info=failure)
        return FAILED
    return 0


def _keep_what_is_loaded() -> None:
    """The collector looks no more through modules and what they made: a full collection stopped every stream of a
    frontend for 60 to 120 ms, and takes 3 without them."""
    gc.collect()
    gc.freeze()


def _arguments(name: str, description: str, settings: type[Settings]) -> dict[str, Any]:
    """What the command line says. Every setting is a flag, and an environment variable; the flag wins."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}", description=description)
    prefix = settings.model_config["env_prefix"]
    for field, info in settings.model_fields.items():
        default = "drawn at start" if info.default_factory else info.default
        meaning = f"{info.description} ({prefix}{field.upper()}; default: {default})".replace("%", "%%")
        parser.add_argument(f"--{field.replace('_', '-')}", metavar="…", help=meaning)
    return {field: value for field, value in vars(parser.parse_args()).items() if value is not None}
