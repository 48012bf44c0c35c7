"""HTTP beside gRPC, in the same event loop; in plaintext, or by TLS."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

LINGER_S = 1
"""How long connections may take to end at the drain; how much longer than a call one may stand that nobody reads."""


class Connection(H11Protocol):
    """A connection that its requests find as `scope["state"]["connection"]`. It ends itself where the caller reads
    nothing for `stall_s`, whatever waits to be sent."""

    stall_s = float("inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = self.app_state | {"connection": self}
        self._stalled: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """At once: the caller sees that what it has is not the whole."""
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stall_s, self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget_stall()

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class HttpServer(uvicorn.Server):
    """Listens from its making on; leaves signals alone."""

    def __init__(self, app: Starlette, address: str, slow_reader_s: float, tls: ssl.SSLContext | None = None) -> None:
        connection = type("StallingConnection", (Connection,), {"stall_s": slow_reader_s + LINGER_S})
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            http=connection,
            ws="none",
            timeout_graceful_shutdown=LINGER_S,
            ssl_context_factory=None if tls is None else lambda *_: tls,
        )
        super().__init__(config)
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host.strip("[]"), int(port)), family=family)
        self.address = f"{host}:{self._listener.getsockname()[1]}"

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_stopped(self) -> None:
        await self.serve([self._listener])

    def stop(self) -> None:
        self.should_exit = True

    def close(self) -> None:
        self._listener.close()
