"""Plain HTTP for whoever watches the worker: /metrics, /healthz and /readyz.

It answers on threads of its own, so that it can tell of an event loop that hangs.
"""

import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from millrace.exposition import expose

AT_ONCE = 16
"""Connections; further ones are closed."""
PATIENCE_S = 5.0
"""How long a connection may be silent."""
POLL_S = 0.1
log = structlog.get_logger()
Page = Callable[[str], tuple[int, str, bytes]]
"""Given the Accept header."""
Report = Callable[[], tuple[bool, dict[str, object]]]


def make_pages(registry: CollectorRegistry, alive: Report, ready: Report) -> dict[str, Page]:
    """By path. Reports answer whether it is so, and what is told of it."""

    def metrics(accept: str) -> tuple[int, str, bytes]:
        return 200, *expose(registry, accept)

    return {"/metrics": metrics, "/healthz": lambda _: _told(*alive()), "/readyz": lambda _: _told(*ready())}


def _told(good: bool, answer: dict[str, object]) -> tuple[int, str, bytes]:
    return 200 if good else 503, "application/json", json.dumps(answer).encode()


class HttpServer(ThreadingMixIn, TCPServer):
    """Serves from its making on, until it is closed."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = AT_ONCE

    def __init__(self, address: str, pages: Mapping[str, Page]) -> None:
        """Raises ValueError where the address cannot be had."""
        host, _, port = address.rpartition(":")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self._places = threading.Semaphore(AT_ONCE)
        try:
            super().__init__((host.strip("[]"), int(port)), _Handler)
        except (OSError, OverflowError) as error:
            raise ValueError(f"http_address {address}: {error}") from error
        self.address = f"{host}:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(POLL_S,), name="http", daemon=True).start()

    def close(self) -> None:
        """Waits until no further connection is accepted."""
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that has gone is nobody's business."""
        if not isinstance(sys.exception(), OSError):
            log.exception("http.failed")


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    timeout = PATIENCE_S
    server_version = "millrace"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        status, kind, body = page(self.headers.get("Accept", "")) if page else (404, "text/plain", b"not here\n")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
