"""`python -m services.worker`: settings and signals; everything else is in worker.py."""

import asyncio
import signal
import sys

from millrace import process
from millrace.security import check_closed
from services.worker.settings import WorkerSettings
from services.worker.worker import Worker

GIL_SWITCH_S = 0.0005
"""The engine thread comes back from each model run for the interpreter; by default it may wait 5 ms for it."""


async def serve(settings: WorkerSettings) -> None:
    check_closed(settings)
    worker = Worker(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    await worker.run()


if __name__ == "__main__":
    sys.setswitchinterval(GIL_SWITCH_S)
    description = "Runs models: takes jobs from the queue as it has room and writes their results to their logs."
    sys.exit(process.run("worker", description, WorkerSettings, serve))
