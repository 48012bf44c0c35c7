"""Scenarios as tests ask for them, and what comes of them."""

from typing import Any, TypeAlias

import pytest

from millrace.load.asking.asker import Asker
from millrace.load.asking.sending import Received
from millrace.load.scenario import Scenario, Task, make_scenario
from tests.load.faulty import MODEL

Lengths: TypeAlias = tuple[int | None, int | None]


def scenario(model: str = MODEL, address: str = "127.0.0.1:1", requests: Any = None, **fields: Any) -> Scenario:
    given = {"address": address, "model": model, "arrivals": {"callers": 1}, "requests": requests or {}}
    return make_scenario(given | fields)


async def asked(asker: Asker, index: int = 0, lengths: Lengths = (None, None)) -> list[Received]:
    return [received async for received in asker.ask(index, *lengths)]


async def complaint(made: Scenario, task: Task) -> str:
    """What entering the asker raises."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        async with Asker(made, task, "salt"):
            pass
    return str(caught.value)
