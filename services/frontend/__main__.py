"""`python -m services.frontend`: settings, logging, event loop, signals; everything else is in server.py."""

import argparse
import asyncio
import signal
import sys

import structlog
import uvloop
from pydantic import ValidationError

from millrace.settings import describe
from millrace.telemetry import configure_logging
from services.frontend.server import Frontend
from services.frontend.settings import FrontendSettings


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m services.frontend",
        description="Serves gRPC: queues jobs in Redis and relays their results.",
        epilog=describe(FrontendSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        settings = FrontendSettings()
    except ValidationError as error:
        print(f"settings: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_format, settings.log_level)
    log = structlog.get_logger()
    log.info("frontend.starting", **settings.redacted())
    try:
        uvloop.run(serve(settings))
    except ExceptionGroup as group:
        for failure in group.exceptions:
            log.error("frontend.failed", error=str(failure), exc_info=failure)
        return 1
    return 0


async def serve(settings: FrontendSettings) -> None:
    frontend = Frontend(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, frontend.stop)
    await frontend.run()


if __name__ == "__main__":
    sys.exit(main())
