"""Reading /metrics of what answers well, badly or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from millrace import scrape as scraping
from millrace.scrape import parse, scrape

PAGE = b"# TYPE jobs gauge\njobs 3.0\n"


@asynccontextmanager
async def answering(answer: bytes, *, hanging: bool = False) -> AsyncIterator[str]:
    """A server that answers each connection so, whatever is asked, and then closes it, or leaves it open."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(answer)
        if not hanging:
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in writers:
            writer.close()


def page() -> str:
    registry = CollectorRegistry()
    Gauge("streams", "", registry=registry).set(4)
    calls = Counter("calls", "", ["method", "code"], registry=registry)
    calls.labels("Generate", "OK").inc(7)
    calls.labels("Generate", "CANCELLED").inc(2)
    calls.labels('List"\\', "OK").inc(1)
    Histogram("wait_seconds", "", buckets=(0.1, 1.0), registry=registry).observe(0.5)
    return generate_latest(registry).decode()


def test_values_are_summed_over_the_series_that_match() -> None:
    samples = parse(page())
    assert samples.value("streams") == 4
    assert samples.value("calls_total") == 10
    assert samples.value("calls_total", code="OK") == 8
    assert samples.value("calls_total", code="OK", method="Generate") == 7
    assert samples.value("calls_total", code="UNKNOWN") == 0
    assert samples.value("calls_total", tenant="a") == 0
    assert samples.value("nothing") == 0
    assert ("streams" in samples, "nothing" in samples) == (True, False)


def test_a_label_divides_a_series() -> None:
    samples = parse(page())
    assert samples.by("calls_total", "code") == {"OK": 8, "CANCELLED": 2}
    assert samples.by("calls_total", "method", code="OK") == {"Generate": 7, 'List"\\': 1}
    assert samples.by("wait_seconds_bucket", "le") == {"0.1": 0, "1.0": 1, "+Inf": 1}
    assert samples.by("streams", "code") == {}


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_a_page_is_read_as_long_as_it_is(head: bytes) -> None:
    async with answering(head + PAGE) as address:
        assert (await scrape(address)).value("jobs") == 3


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n" + PAGE, "404 Not Found"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 28\r\n\r\n" + PAGE, "not wholly"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + PAGE, "99999999 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + 9 * PAGE, "more than 200 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html><body>no</body></html>", "no page of metrics"),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe", "no page of metrics"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "it is empty"),
        (b"\x00\x00\x12\x04\x00\x00\x00", "does not answer in HTTP"),
        (b"SSH-2.0\r\n\r\n", "SSH-2.0"),
        (b"", "does not answer in HTTP"),
    ],
)
async def test_what_is_no_page_of_metrics_is_an_error_that_says_so(
    answer: bytes, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scraping, "MOST_BYTES", 200)
    async with answering(answer) as address:
        with pytest.raises(OSError, match=complaint):
            await scrape(address)


async def test_who_does_not_answer_is_not_waited_for() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\njobs", hanging=True) as address:
        with pytest.raises(TimeoutError, match=f"http://{address}/metrics does not answer within 0.05 s"):
            await scrape(address, timeout_s=0.05)


async def test_who_is_not_there_is_an_error() -> None:
    async with answering(b"") as address:
        pass
    with pytest.raises(OSError, match="Connect"):
        await scrape(address)


@pytest.mark.parametrize("address", ["localhost", ":8002", "a:", "http://a", "a:²", "a:65536"])
async def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        await scrape(address)
