"""The client for `Generate`, against a server that says tokens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from bench import blobs
from bench.streams import Measured, Streams, run
from millrace.v1.generation_pb2 import CompletionDelta, GenerateRequest, GenerateResponse, Stopping, TokenIds, Usage
from millrace.v1.generation_pb2_grpc import TextGenerationServiceServicer, add_TextGenerationServiceServicer_to_server


class Echo(TextGenerationServiceServicer):
    """Says a prompt's last token as often as it is asked to. `gap`: leaves out the second message."""

    def __init__(self, *, gap: bool = False) -> None:
        self.prompts: list[list[int]] = []
        self._gap = gap

    async def Generate(
        self, request: GenerateRequest, context: grpc.aio.ServicerContext[GenerateRequest, GenerateResponse]
    ) -> AsyncIterator[GenerateResponse]:
        ids = list(request.tokens.ids)
        self.prompts.append(ids)
        for offset in range(1, request.stopping.max_tokens + 1):
            if not (self._gap and offset == 2):
                usage = Usage(cached_prompt_tokens=len(ids) - 1)
                yield GenerateResponse(offset=offset, deltas=[CompletionDelta(token_ids=ids[-1:])], usage=usage)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = grpc.aio.server()
        add_TextGenerationServiceServicer_to_server(self, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(None)


def request(*ids: int, tokens: int) -> bytes:
    stopping = Stopping(max_tokens=tokens)
    return GenerateRequest(model="echo", tokens=TokenIds(ids=ids), stopping=stopping).SerializeToString()


@pytest.fixture
def requests(tmp_path: Path) -> str:
    """The warm one and two more."""
    path = tmp_path / "requests"
    blobs.write(path, [request(9, tokens=1), request(5, 6, tokens=3), request(7, tokens=2)])
    return str(path)


async def measured(server: Echo, requests: str, callers: int = 0, due_s: tuple[float, ...] = ()) -> Measured:
    async with server.serving() as address:
        return await run(Streams(address=address, requests=requests, callers=callers, due_s=due_s, channels=1))


async def test_the_first_request_warms_up_and_does_not_count(requests: str) -> None:
    server = Echo()
    found = await measured(server, requests, callers=1)
    assert server.prompts == [[9], [5, 6], [7]]
    assert found.token_ids == [[6, 6, 6], [7, 7]]
    assert (found.tokens, found.messages, found.cached_tokens) == (5, 5, [1, 0])


async def test_times_run_from_the_start_and_each_first_token_from_its_request(requests: str) -> None:
    found = await measured(Echo(), requests, callers=1)
    assert found.times_s[0][-1] <= found.sent_s[1] < found.times_s[1][0]
    assert found.first_ms[1] == pytest.approx(1000 * (found.times_s[1][0] - found.sent_s[1]))
    assert found.per_token_ms[0] == pytest.approx(1000 * (found.times_s[0][2] - found.times_s[0][0]) / 2)


async def test_in_an_open_loop_requests_count_from_when_they_are_due(requests: str) -> None:
    found = await measured(Echo(), requests, due_s=(0.0, 0.05))
    assert found.sent_s == pytest.approx([0.0, 0.05])
    assert found.times_s[1][0] > 0.05


async def test_a_stream_with_a_gap_is_an_error(requests: str) -> None:
    with pytest.raises(ValueError, match="gap"):
        await measured(Echo(gap=True), requests, callers=2)
