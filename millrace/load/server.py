"""What the service says of itself while it is loaded: the frontends' /metrics, about each second."""

import asyncio
import time
from collections.abc import Sequence

from millrace.load.result import ServerSample
from millrace.load.scenario import Scenario
from millrace.scrape import Samples, scrape

EVERY_S = 1.0


def metrics_addresses(scenario: Scenario) -> list[str]:
    """HOST:PORT of each; by default the port after that of gRPC, or, with TLS, the one after: metrics are in
    plaintext. Raises ValueError for an address without a port."""
    if scenario.http is not None:
        return [address for address in scenario.http.split(",") if address]
    return [_beside(address, 2 if scenario.tls else 1) for address in scenario.addresses]


class Sampling:
    """All frontends say the same of the fleet, so the first that answers is believed."""

    def __init__(self, addresses: Sequence[str], model: str, model_version: str) -> None:
        self._addresses = list(addresses)
        self._prefix = f"{model}/{model_version}"
        self.samples: list[ServerSample] = []
        self.problem: str | None = None
        """Why there are fewer samples than seconds."""

    async def run(self, begin: float) -> None:
        """Samples until it is cancelled. `begin`, of time.monotonic(), is when measuring begins."""
        while self._addresses:
            await self._sample(begin)
            await asyncio.sleep(EVERY_S - (time.monotonic() - begin) % EVERY_S)

    async def _sample(self, begin: float) -> None:
        for address in self._addresses:
            try:
                said = await scrape(address)
            except OSError as error:
                self.problem = f"The service's own view is missing, or has gaps: {address}: {error}"
                continue
            self.samples.append(read(said, self._prefix, time.monotonic() - begin))
            return


def read(said: Samples, prefix: str, at_s: float) -> ServerSample:
    """`prefix`: MODEL/VERSION, or MODEL/ for all versions."""

    def values(name: str) -> list[float]:
        by_model = said.by(name, "model")
        exact = not prefix.endswith("/")
        return [value for model, value in by_model.items() if (model == prefix if exact else model.startswith(prefix))]

    return ServerSample(
        at_s=at_s,
        waiting_jobs=sum(values("millrace_queue_waiting_jobs")),
        running_jobs=sum(values("millrace_queue_running_jobs")),
        estimated_wait_s=max(values("millrace_queue_estimated_wait_seconds"), default=0.0),
        ready_workers=max(values("millrace_queue_ready_workers"), default=0.0),
        runs=sum(values("millrace_model_runs_total")),
        rows=sum(values("millrace_model_run_rows_total")),
    )


def _beside(address: str, step: int) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{address!r} is not of the form HOST:PORT")
    return f"{host}:{int(port) + step}"
