"""The commands that show the model repository and say what is to be loaded of it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millrace import AsyncClient
from millrace.cli.calls import errors
from millrace.cli.service import Service
from millrace.errors import MillraceError

GLANCE_S = 0.5
COLOURS = {"READY": "green", "LOADING": "yellow", "UNLOADING": "yellow", "UNAVAILABLE": "red"}


async def show(service: Service) -> None:
    """Prints a table of every version in the repository."""
    async with service.knocking() as client:
        models = await client.repository_index()
    table = Table("model", "version", "state", "reason", box=SIMPLE)
    for one in models:
        state = f"[{COLOURS.get(one.state, 'default')}]{one.state}[/]"
        table.add_row(escape(one.name), escape(one.version), state, escape(one.reason))
    Console().print(table)


async def load(service: Service, model: str, timeout_s: float | None) -> None:
    async with service.knocking() as client:
        await _wait(client, model, client.load_model(model, timeout_s=timeout_s))


async def unload(service: Service, model: str, timeout_s: float | None) -> None:
    async with service.knocking() as client:
        await _wait(client, model, client.unload_model(model, timeout_s=timeout_s))


async def _wait(client: AsyncClient, model: str, call: Coroutine[Any, Any, None]) -> None:
    """Shows how the model stands until the call is over, and then."""
    with errors.status(f"{escape(model)} …") as status:
        command = asyncio.create_task(call)
        while not command.done():
            await asyncio.wait([command], timeout=GLANCE_S)
            status.update(f"{escape(model)} … {escape(await _state(client, model))}")
        await command
    errors.print(f"{escape(model)}: {escape(await _state(client, model))}")


async def _state(client: AsyncClient, model: str) -> str:
    try:
        index = await client.repository_index()
    except MillraceError as error:
        return error.message
    return ", ".join(f"version {one.version} {one.state}" for one in index if one.name == model)
