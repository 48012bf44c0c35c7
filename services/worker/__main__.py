"""`python -m services.worker`: settings, logging, event loop; everything else is in worker.py."""

import argparse
import sys

import structlog
import uvloop
from pydantic import ValidationError

from millrace.settings import describe
from millrace.telemetry import configure_logging
from services.worker.settings import WorkerSettings
from services.worker.worker import Worker

GIL_SWITCH_S = 0.0005
"""The engine thread comes back from each model run for the interpreter; by default it may wait 5 ms for it."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m services.worker",
        description="Runs models: takes jobs from the queue as it has room and writes their results to their logs.",
        epilog=describe(WorkerSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        settings = WorkerSettings()
    except ValidationError as error:
        print(f"settings: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_format, settings.log_level)
    log = structlog.get_logger()
    log.info("worker.starting", **settings.redacted())
    sys.setswitchinterval(GIL_SWITCH_S)
    try:
        uvloop.run(serve(settings))
    except ValueError as error:
        log.error("worker.refused", error=str(error))
        return 2
    except ExceptionGroup as group:
        for failure in group.exceptions:
            log.error("worker.failed", error=str(failure), exc_info=failure)
        return 1
    return 0


async def serve(settings: WorkerSettings) -> None:
    await Worker(settings).run()


if __name__ == "__main__":
    sys.exit(main())
