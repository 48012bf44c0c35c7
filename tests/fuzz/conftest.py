"""The processes that are called over the wire."""

from collections.abc import Iterator

import pytest

from tests.fuzz.wire import Running, started


@pytest.fixture(scope="package")
def running() -> Iterator[Running]:
    with started() as processes:
        yield processes
