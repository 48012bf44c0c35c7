"""`python -m services.frontend`: settings and signals; everything else is in server.py."""

import asyncio
import signal
import sys

from millrace import process
from services.frontend.security import check_security
from services.frontend.server import Frontend
from services.frontend.settings import FrontendSettings


async def serve(settings: FrontendSettings) -> None:
    check_security(settings)
    frontend = Frontend(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, frontend.stop)
    await frontend.run()


if __name__ == "__main__":
    description = "Serves gRPC: queues jobs in Redis and relays their results."
    sys.exit(process.run("frontend", description, FrontendSettings, serve))
