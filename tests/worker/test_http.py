"""The worker's metrics and health over HTTP."""

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from services.worker import http
from services.worker.http import HttpServer, make_pages


class Watched:
    """What the pages tell of."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ready = True

    def pages(self) -> dict[str, http.Page]:
        return make_pages(self.registry, lambda: (True, {"alive": True}), lambda: (self.ready, {"ready": self.ready}))


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def server(watched: Watched) -> Iterator[HttpServer]:
    server = HttpServer("127.0.0.1:0", watched.pages())
    yield server
    server.close()


def get(server: HttpServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{server.address}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_and_health_are_told(server: HttpServer, watched: Watched) -> None:
    Gauge("things", "how many", registry=watched.registry).set(3)
    status, text = get(server, "/metrics")
    assert (status, "things 3.0" in text.splitlines()) == (200, True)
    assert get(server, "/healthz?verbose") == (200, json.dumps({"alive": True}))
    assert get(server, "/readyz") == (200, json.dumps({"ready": True}))
    watched.ready = False
    assert get(server, "/readyz") == (503, json.dumps({"ready": False}))
    assert get(server, "/elsewhere")[0] == 404


def test_an_address_that_is_taken_is_refused_with_a_sentence(server: HttpServer, watched: Watched) -> None:
    with pytest.raises(ValueError, match=f"^http_address {server.address}: .*in use"):
        HttpServer(server.address, watched.pages())


def test_callers_that_say_nothing_are_few_and_leave(
    monkeypatch: pytest.MonkeyPatch, server: HttpServer, watched: Watched
) -> None:
    monkeypatch.setattr(http._Handler, "timeout", 0.3)
    host, _, port = server.address.rpartition(":")
    before = threading.active_count()
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(3 * http.AT_ONCE)]
    gone = [connection.recv(1) for connection in silent]
    assert gone == [b""] * len(silent)
    assert threading.active_count() <= before + http.AT_ONCE
    for connection in silent:
        connection.close()
    assert get(server, "/healthz")[0] == 200
