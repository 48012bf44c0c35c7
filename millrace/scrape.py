"""Reading a process's /metrics: Prometheus's text format over plain HTTP, without blocking the event loop."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client.parser import text_string_to_metric_families

MOST_BYTES = 16 << 20
"""Of an answer: no process of ours says nearly as much."""
Series = tuple[Mapping[str, str], float]
"""Labels and value."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One process's series, by the names that stand in the text: a counter's ends in _total, a histogram's in _bucket,
    _sum or _count."""

    series: Mapping[str, list[Series]]

    def __contains__(self, name: str) -> bool:
        return name in self.series

    def value(self, name: str, /, **labels: str) -> float:
        """The sum over the series that have these labels among theirs; 0 where there are none."""
        return sum(value for _, value in self._matching(name, labels))

    def by(self, name: str, label: str, /, **labels: str) -> dict[str, float]:
        """The sums for each value of a label, over the series that have it, and `labels` among theirs."""
        sums: dict[str, float] = defaultdict(float)
        for having, value in self._matching(name, labels):
            if label in having:
                sums[having[label]] += value
        return dict(sums)

    def _matching(self, name: str, labels: Mapping[str, str]) -> Iterator[Series]:
        return (one for one in self.series.get(name, ()) if labels.items() <= one[0].items())


def split_address(address: str) -> tuple[str, int]:
    """Raises ValueError where it is not of the form HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError(f"{address!r} is not of the form HOST:PORT")
    return host, int(port)


async def scrape(address: str, timeout_s: float = 2.0) -> Samples:
    """What HOST:PORT says at /metrics.

    Raises:
        OSError: nobody answers there in time, or not with a page of metrics.
        ValueError: the address is not of the form HOST:PORT.
    """
    host, port = split_address(address)
    try:
        async with asyncio.timeout(timeout_s):
            text = await _fetch(host.strip("[]"), port)
    except TimeoutError as error:
        raise TimeoutError(f"http://{address}/metrics does not answer within {timeout_s:g} s") from error
    try:
        return await asyncio.to_thread(parse, text.decode())
    except ValueError as error:
        raise OSError(f"http://{address}/metrics is no page of metrics: {error}") from error


def parse(text: str) -> Samples:
    """Raises ValueError where it is not in Prometheus's text format, or holds no sample."""
    series: dict[str, list[Series]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series[sample.name].append((sample.labels, sample.value))
    if not series:
        raise ValueError("it is empty")
    return Samples(dict(series))


async def _fetch(host: str, port: int) -> bytes:
    """HTTP/1.0 has neither chunks nor connections that stay."""
    reader, writer = await asyncio.open_connection(host, port, limit=MOST_BYTES)
    try:
        writer.write(f"GET /metrics HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode("ascii", "replace"))
        return await _body(reader)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ConnectionError(f"{host}:{port} does not answer in HTTP, or not wholly, or with too much") from error
    finally:
        writer.transport.abort()


async def _body(reader: asyncio.StreamReader) -> bytes:
    """Of an answer, as long as its head says, or up to its end."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/") or not status.startswith(str(HTTPStatus.OK.value)):
        raise ConnectionError(f"asked for /metrics, it answers {first[:80]!r}")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if (length := headers.get("content-length", "")).isdecimal():
        if int(length) > MOST_BYTES:
            raise ConnectionError(f"its metrics are {length} bytes, more than {MOST_BYTES}")
        return await reader.readexactly(int(length))
    body = bytearray()
    while (part := await reader.read(1 << 16)) and len(body) <= MOST_BYTES:
        body += part
    if len(body) > MOST_BYTES:
        raise ConnectionError(f"its metrics are more than {MOST_BYTES} bytes")
    return bytes(body)
