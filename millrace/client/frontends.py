"""The frontends that a client knows: one channel each, taken in turn, the ones that failed just now left out."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import grpc.aio

from millrace.client.diagnosis import diagnose
from millrace.client.tls import Tls
from millrace.errors import Unavailable

REST_S = 1.0
LOOK_S = 1.0
"""How often TLS' files are looked at, at most."""
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
    """One address. `credentials`: by TLS."""

    def __init__(self, address: str, tls: Tls | None, credentials: grpc.ChannelCredentials | None) -> None:
        self._address, self._tls = address, tls
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        else:
            named = [("grpc.ssl_target_name_override", tls.server_name)] if tls and tls.server_name else []
            self.channel = grpc.aio.secure_channel(address, credentials, options=[*OPTIONS, *named])
        self.calls = 0
        self.failed_at = float("-inf")
        self.problem: Unavailable | None = None
        """Why it cannot be spoken to, where no other attempt would do better."""

    async def failed(self, text: str) -> None:
        """`text` is what gRPC says."""
        self.failed_at = time.monotonic()
        self.problem = await diagnose(self._address, self._tls, text)


class Frontends:
    """Opens its channels when it is opened, and anew when the files of `tls` have changed: a call goes on over the
    channel that it was begun on."""

    def __init__(self, addresses: tuple[str, ...], tls: Tls | None = None) -> None:
        if not addresses:
            raise ValueError("a client needs at least one address")
        self._addresses, self._tls = addresses, tls
        self._frontends: list[Frontend] = []
        self._left: set[Frontend] = set()
        self._closing: set[asyncio.Future[None]] = set()
        self._turn = random.randrange(len(addresses))
        self._state: tuple[object, ...] = ()
        self._looked_at = float("-inf")

    def open(self) -> None:
        """Raises ValueError where TLS cannot use its files."""
        self._frontends = self._make()

    async def close(self) -> None:
        frontends, self._frontends, self._left = {*self._frontends, *self._left}, [], set()
        for frontend in frontends:
            await frontend.channel.close()
        await asyncio.gather(*self._closing)

    @contextmanager
    def turn(self) -> Iterator[Frontend]:
        """For one call: the next frontend that has not just failed; where all have, the one that failed first."""
        if not self._frontends:
            raise RuntimeError("the client is not open: use `async with AsyncClient(…)`")
        self._renew()
        self._turn += 1
        count, rested = len(self._frontends), time.monotonic() - REST_S
        order = [self._frontends[(self._turn + step) % count] for step in range(count)]
        frontend = next((one for one in order if one.failed_at < rested), min(order, key=lambda one: one.failed_at))
        frontend.calls += 1
        try:
            yield frontend
        finally:
            frontend.calls -= 1

    @property
    def hopeless(self) -> bool:
        """Whether no attempt at any of them would do better."""
        return all(one.problem for one in self._frontends)

    def _make(self) -> list[Frontend]:
        state = self._tls.state() if self._tls is not None else ()
        credentials = self._tls.credentials() if self._tls is not None else None
        self._state = state
        return [Frontend(address, self._tls, credentials) for address in self._addresses]

    def _renew(self) -> None:
        """Files that cannot be used, as a pair that is half-written, are looked at again; until then all is as it was.
        A channel that is left is closed after its last call."""
        if self._tls is None or time.monotonic() < self._looked_at + LOOK_S:
            return
        self._looked_at = time.monotonic()
        if self._tls.state() != self._state:
            with suppress(ValueError):
                made = self._make()
                self._left |= set(self._frontends)
                self._frontends = made
        for one in [one for one in self._left if not one.calls]:
            self._left.remove(one)
            closing = asyncio.ensure_future(one.channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


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
