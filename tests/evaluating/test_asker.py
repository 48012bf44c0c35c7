"""How each kind of example is asked, and what is kept of the answer."""

import asyncio
from pathlib import Path

import pytest
from google.protobuf.message import Message

from millrace import AsyncClient
from millrace.evaluating.asking import Answer, Asker, Options, Target
from millrace.evaluating.asking.answer import to_vector
from millrace.evaluating.data import Example
from millrace.evaluating.kinds import Kind
from millrace.queue import Ending
from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    CompletionDelta,
    GenerateRequest,
    GenerateResponse,
    TokenLogprobs,
)
from millrace.v1.tasks_pb2 import EmbedRequest, EmbedResponse, TranscribeRequest, TranscribeResponse
from tests.client.typed_worker import Held, typed

FINISHED = CompletionDelta(text="lo", finish_reason=FINISH_REASON_LENGTH)
COSTS = [
    TokenLogprobs(token_id=1, logprob=0.0, token=b"<s>"),
    TokenLogprobs(token_id=2, logprob=-1.5, token="é".encode()),
    TokenLogprobs(token_id=3, logprob=-0.5, token=b"!"),
]


async def ask(
    client: AsyncClient,
    redis_url: str,
    kind: Kind,
    example: Example,
    request: type[Message],
    results: list[Message],
    **options: object,
) -> tuple[Answer, Held]:
    tasks = {"generate": "generate", "perplexity": "generate", "embed": "embed", "transcribe": "transcribe"}
    async with typed(redis_url, tasks[kind]) as worker:
        target = Target(model="typed", version="1", task="")
        asker = Asker(client, target, kind, Options.model_validate(options))
        call = asyncio.ensure_future(asker.ask(example, "job-1"))
        held = await worker.next(request)
        for result in results[:-1]:
            await held.give(result)
        await held.give(results[-1], Ending())
        return await call, held


async def test_completions_are_greedy(client: AsyncClient, redis_url: str) -> None:
    results: list[Message] = [
        GenerateResponse(offset=1, deltas=[CompletionDelta(text="hel")]),
        GenerateResponse(offset=2, deltas=[FINISHED]),
    ]
    example = Example(id="0", text="say ", truth="hello")
    answer, held = await ask(
        client, redis_url, "generate", example, GenerateRequest, results, max_tokens=7, stop=["\n"]
    )
    assert answer == Answer(text="hello")
    request = held.request
    assert (request.text, request.sampling.temperature, request.model_version) == ("say ", 0.0, "1")
    assert (request.stopping.max_tokens, list(request.stopping.stop_strings)) == (7, ["\n"])
    assert held.lease.ref.job_id == "job-1"


async def test_a_text_costs_what_its_tokens_do_but_for_the_first(client: AsyncClient, redis_url: str) -> None:
    results: list[Message] = [
        GenerateResponse(offset=1, prompt_logprobs=COSTS[:2]),
        GenerateResponse(offset=2, prompt_logprobs=COSTS[2:], deltas=[FINISHED]),
    ]
    answer, held = await ask(client, redis_url, "perplexity", Example(id="0", text="é!"), GenerateRequest, results)
    assert answer == Answer(nats=2.0, tokens=2, bytes=3)
    assert held.request.reporting.HasField("prompt_logprobs")


async def test_of_a_single_token_nothing_is_to_be_said(client: AsyncClient, redis_url: str) -> None:
    results: list[Message] = [GenerateResponse(offset=1, prompt_logprobs=COSTS[:1], deltas=[FINISHED])]
    with pytest.raises(ValueError, match="single token"):
        await ask(client, redis_url, "perplexity", Example(id="0", text="a"), GenerateRequest, results)


async def test_vectors_are_kept_bit_by_bit(client: AsyncClient, redis_url: str) -> None:
    results: list[Message] = [EmbedResponse(embeddings=[EmbedResponse.Embedding(values=[0.1, -2.0])])]
    answer, held = await ask(
        client, redis_url, "embed", Example(id="0", text="a"), EmbedRequest, results, truncate=True
    )
    assert to_vector(answer.vector or "").tolist() == list(results[0].embeddings[0].values)  # type: ignore[attr-defined]
    assert held.request.truncate


async def test_a_transcript_is_all_its_segments(client: AsyncClient, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    results: list[Message] = [TranscribeResponse(offset=1, text="one "), TranscribeResponse(offset=2, text="two")]
    example = Example(id="0", file=tmp_path / "a.wav", medium="audio", truth="one two")
    answer, held = await ask(client, redis_url, "transcribe", example, TranscribeRequest, results, language="en")
    assert answer == Answer(text="one two")
    assert (held.request.audio, held.request.language) == (b"RIFF", "en")
