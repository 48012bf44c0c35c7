"""A frontend whose gate is guarded, and a tenant of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from services.frontend.access import watched
from services.frontend.server import Frontend
from tests.frontend.access.tenants import Book
from tests.frontend.playing import Worker, frontend


@pytest.fixture(autouse=True)
def looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are."""
    monkeypatch.setattr(watched, "PERIOD_S", 0.02)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "tenants.yaml")


@pytest.fixture
def key(book: Book) -> str:
    """Of tenant acme, whose policy is plain."""
    return book.add("acme")


@pytest.fixture
async def served(redis_url: str, worker: Worker, book: Book, key: str) -> AsyncIterator[Frontend]:
    """A frontend that serves everything, to who has a key."""
    async with frontend(redis_url, api_keys=book.path, openai=True, page=True) as running:
        yield running


@pytest.fixture
async def channel(served: Frontend) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(served.grpc_address) as opened:
        yield opened
