"""The frontends that a client knows: one channel each, taken in turn, the ones that failed just now left out."""

import asyncio
import random
import time

import grpc.aio

REST_S = 1.0
OPTIONS = (
    # The service bounds what it takes, and says so field by field; what it gives was asked for.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A frontend that was killed or frozen is noticed after about two seconds. It is ping_timeout, a minute by default,
    # that bounds the answer to a keepalive.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 1_500),
    ("grpc.http2.ping_timeout_ms", 1_500),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Streams resume in the client; gRPC's own retries would only hide which frontend failed.
    ("grpc.enable_retries", 0),
)


class Frontend:
    """One address."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self.failed_at = float("-inf")

    def failed(self) -> None:
        self.failed_at = time.monotonic()


class Frontends:
    """Opens its channels when it is entered."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        if not addresses:
            raise ValueError("a client needs at least one address")
        self._addresses = addresses
        self._frontends: list[Frontend] = []
        self._turn = random.randrange(len(addresses))

    def open(self) -> None:
        self._frontends = [Frontend(address) for address in self._addresses]

    async def close(self) -> None:
        frontends, self._frontends = self._frontends, []
        for frontend in frontends:
            await frontend.channel.close()

    def pick(self) -> Frontend:
        """The next that has not just failed; where all have, the one that failed first."""
        if not self._frontends:
            raise RuntimeError("the client is not open: use `async with AsyncClient(…)`")
        self._turn += 1
        count, rested = len(self._frontends), time.monotonic() - REST_S
        order = [self._frontends[(self._turn + step) % count] for step in range(count)]
        return next((one for one in order if one.failed_at < rested), min(order, key=lambda one: one.failed_at))


class Backoff:
    """Exponential, with full jitter, within a budget of seconds that each success renews."""

    def __init__(self, budget_s: float, first_s: float = 0.05, largest_s: float = 2.0) -> None:
        self._budget_s, self._first_s, self._largest_s = budget_s, first_s, largest_s
        self.renew()

    def renew(self) -> None:
        self._failures = 0
        self._since = float("inf")

    async def wait(self, at_least_s: float = 0.0) -> bool:
        """False, without waiting, where the budget does not reach."""
        now = time.monotonic()
        self._since = min(self._since, now)
        delay = at_least_s + random.uniform(0, min(self._largest_s, self._first_s * 2**self._failures))
        if now + delay > self._since + self._budget_s:
            return False
        self._failures += 1
        await asyncio.sleep(delay)
        return True
