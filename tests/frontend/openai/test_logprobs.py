"""Log-probabilities, as both styles write them."""

import asyncio
from typing import Any

import pytest

from millrace.v1.generation_pb2 import FINISH_REASON_LENGTH, CompletionDelta, GenerateResponse, TokenLogprobs, Usage
from services.frontend.openai.logprobs import for_chat, for_text
from tests.frontend.openai.calling import TEXT, Caller, emit, error, prompt
from tests.frontend.playing import Worker

PROMPT = [TokenLogprobs(token=b"he"), TokenLogprobs(token=b"y", logprob=-1.0)]
LAST = GenerateResponse(
    deltas=[CompletionDelta(text=" you", logprobs=[TokenLogprobs(token=b" you", logprob=-2.0)])],
    usage=Usage(prompt_tokens=2, completion_tokens=1),
)
LAST.deltas[0].finish_reason = FINISH_REASON_LENGTH


def score(token: bytes, logprob: float, **top: float) -> TokenLogprobs:
    candidates = [TokenLogprobs.Candidate(token=name.encode(), logprob=value) for name, value in top.items()]
    return TokenLogprobs(token=token, logprob=logprob, top=candidates)


def test_the_drawn_token_stands_among_the_likeliest_ones() -> None:
    told = for_text([score(b"a", -3.0, b=-1.0, c=-2.0), score(b"b", -1.0, b=-1.0, c=-2.0)], 5)
    assert told["top_logprobs"] == [{"b": -1.0, "c": -2.0, "a": -3.0}, {"b": -1.0, "c": -2.0}]
    assert told["text_offset"] == [5, 6]


def test_the_bytes_of_half_a_character_are_told() -> None:
    (entry,) = for_chat([score(b"\xc3", -1.0, x=-0.5)])["content"]
    assert (entry["token"], entry["bytes"], entry["logprob"]) == ("�", [0xC3], -1.0)
    assert entry["top_logprobs"] == [{"token": "x", "logprob": -0.5, "bytes": [0x78]}]
    assert for_text([score(b"\xc3", -1.0)], 0)["tokens"] == ["bytes:\\xc3"]


async def asked(http: Caller, worker: Worker, **fields: Any) -> Any:
    """The choice, and the usage, where the worker scores the prompt "hey"."""
    asking = asyncio.create_task(http.post(TEXT, prompt("hey", echo=True) | fields))
    held = await worker.take()
    await emit(worker, held, GenerateResponse(prompt_logprobs=PROMPT), LAST, last=True)
    answer = (await asking).json()
    return answer["choices"][0], answer["usage"]


async def test_an_echo_with_logprobs_scores_the_prompt_too(http: Caller, worker: Worker) -> None:
    choice, usage = await asked(http, worker, logprobs=0)
    assert choice["text"] == "hey you"
    assert choice["logprobs"]["tokens"] == ["he", "y", " you"]
    assert choice["logprobs"]["token_logprobs"] == [None, -1.0, -2.0]
    assert choice["logprobs"]["top_logprobs"] == [None, {"y": -1.0}, {" you": -2.0}]
    assert choice["logprobs"]["text_offset"] == [0, 2, 3]
    assert usage["total_tokens"] == 3


async def test_an_answer_does_not_grow_without_bound(
    http: Caller, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.frontend.openai.generation.MOST_SCORES", 2)
    asking = asyncio.create_task(http.post(TEXT, prompt("hey", echo=True, logprobs=0)))
    await emit(worker, await worker.take(), GenerateResponse(prompt_logprobs=PROMPT), LAST, last=True)
    response = await asking
    assert (response.status_code, error(response)["param"]) == (400, "logprobs")


async def test_of_no_tokens_only_the_prompt_is_told(http: Caller, worker: Worker) -> None:
    choice, usage = await asked(http, worker, logprobs=0, max_tokens=0)
    assert (choice["text"], choice["finish_reason"]) == ("hey", "length")
    assert choice["logprobs"]["tokens"] == ["he", "y"]
    assert (usage["completion_tokens"], usage["total_tokens"]) == (0, 2)


async def test_an_echo_of_tokens_is_read_from_what_the_worker_says_of_them(http: Caller, worker: Worker) -> None:
    choice, _ = await asked(http, worker, prompt=[7, 8])
    assert (choice["text"], choice["logprobs"]) == ("hey you", None)
