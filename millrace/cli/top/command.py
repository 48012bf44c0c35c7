"""The command."""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from millrace.cli import calls
from millrace.cli.service import Service, calling
from millrace.cli.top import view
from millrace.cli.top.reading import Reader
from millrace.cli.top.rows import Overview, overview
from millrace.cli.top.watch import WINDOW_S, Watch
from millrace.errors import InvalidRequest, Unavailable, Violation
from millrace.scrape import split_address

TICK_S = 1.0
WIDE = 200
"""Cells, where it is not a terminal that it is written to."""
Http = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT[,…]",
        help="Where frontends serve /metrics; unset: one port above --address each, two by TLS.",
    ),
]


@calling
def top(
    service: Service,
    http: Http = None,
    interval: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks; unset: 1, or 3 with --once.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look twice, an interval apart, print, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, for scripts.")] = False,
) -> None:
    """Watch the fleet: models, queues, workers, frontends, and how fast they are. q quits.

    Frontends and workers may come and go meanwhile. Where the output is no terminal, it looks once.

    [bold]millrace top[/bold]
    [bold]millrace top --address 10.0.0.7:8001,10.0.0.8:8001 --http 10.0.0.7:8002,10.0.0.8:8002[/bold]
    [bold]millrace top --json | jq .totals.results_s[/bold]
    """
    if once or as_json or not sys.stdout.isatty():
        raise typer.Exit(calls.run(_look(service, http, interval or WINDOW_S, as_json=as_json)))
    raise typer.Exit(calls.run(_watch(service, http, interval or TICK_S)))


async def _watch(service: Service, http: str | None, interval_s: float) -> None:
    async with reading(service, http) as reader:
        await Watch(reader, Console(), interval_s).run()


async def _look(service: Service, http: str | None, interval_s: float, *, as_json: bool) -> None:
    """Raises Unavailable where nobody answers."""
    async with reading(service, http) as reader:
        before = await reader.read()
        await asyncio.sleep(interval_s)
        now = await reader.read()
    if not now.reached:
        raise Unavailable(f"nobody answers at {service.address}: {now.fleet_problem}", reason="UNREACHABLE")
    _print(overview(now, before), as_json=as_json)


def reading(service: Service, http: str | None) -> Reader:
    """Raises InvalidRequest where an address is none."""
    addresses = metrics_addresses(service.addresses, http, 2 if service.by_tls else 1)
    return Reader([service.client(address, retry_s=0) for address in service.addresses], addresses)


def metrics_addresses(addresses: list[str], http: str | None, step: int = 1) -> list[str]:
    """Raises InvalidRequest where one is not of the form HOST:PORT."""
    option, given = ("--address", addresses) if http is None else ("--http", http.split(","))
    try:
        parts = [split_address(one) for one in given]
    except ValueError as error:
        raise InvalidRequest([Violation(option, str(error))]) from error
    return given if http is not None else [f"{host}:{port + step}" for host, port in parts]


def _print(shown: Overview, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(shown), indent=2))
        return
    console = Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=WIDE)
    console.print(view.plain(shown, console.width))
