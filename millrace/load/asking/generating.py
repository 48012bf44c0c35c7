"""Generations: prompts that are texts, or random token ids of given lengths."""

from collections.abc import Sequence
from random import Random
from typing import Any, cast

import grpc.aio

from millrace.client.request import GenerateOptions, make_request
from millrace.load.asking.lengths import check_length, draw_for, draw_length, draw_token_ids
from millrace.load.asking.prompts import read_texts
from millrace.load.asking.sending import Received, Streaming, job_options
from millrace.load.asking.verify import Generation
from millrace.load.scenario import Length, Requests, Scenario
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub

MAX_TOKENS = 64
"""Where the scenario says nothing: else a generation may go on to the end of the context."""
MOST_TOKEN_ID = 2**32


def generating(scenario: Scenario) -> Streaming:
    """Raises ValueError for what no generation can be made of."""
    return Streaming(prepare=Generations(scenario).prepare, name=_name, method=_method, count=_count, stream=Generation)


class Generations:
    """The scenario's requests, each by its number. Their texts are taken in turn; a trace's lengths go before the
    scenario's, but what is given as text keeps its own."""

    def __init__(self, scenario: Scenario) -> None:
        requests = scenario.requests
        _check(requests)
        self._seed, self._token_ids = scenario.seed, requests.token_ids
        self._texts: Sequence[str] = read_texts(requests)
        self._has_texts = requests.prompt is not None or requests.prompts is not None
        self._prompt_tokens = requests.prompt_tokens
        self._max_tokens = requests.max_tokens if requests.max_tokens is not None else MAX_TOKENS
        self._sets_max_tokens = "max_tokens" not in requests.options
        self._template = _template(scenario)

    def prepare(self, index: int, prompt_tokens: int | None, output_tokens: int | None) -> GenerateRequest:
        request, draw = GenerateRequest(), draw_for(self._seed, index)
        request.CopyFrom(self._template)
        self._set_prompt(request, index, prompt_tokens or self._prompt_tokens, draw)
        if output_tokens is not None:
            stopping = request.stopping
            stopping.max_tokens, stopping.min_tokens, stopping.ignore_eos = output_tokens, output_tokens, True
        elif self._sets_max_tokens:
            request.stopping.max_tokens = draw_length(self._max_tokens, draw)
        return request

    def _set_prompt(self, request: GenerateRequest, index: int, length: Length | None, draw: Random) -> None:
        if self._has_texts or length is None:
            request.text = self._texts[index % len(self._texts)]
        else:
            request.tokens.ids.extend(draw_token_ids(draw_length(length, draw), self._token_ids, draw))


def _template(scenario: Scenario) -> GenerateRequest:
    options = cast(GenerateOptions, dict(scenario.requests.options))
    try:
        request = make_request(scenario.model, "", options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"requests.options: {error}") from error
    request.ClearField("text")
    request.model_version = scenario.model_version
    request.job.CopyFrom(job_options(scenario))
    return request


def _check(requests: Requests) -> None:
    low, high = requests.token_ids
    if not 0 <= low < high <= MOST_TOKEN_ID:
        raise ValueError(f"requests.token_ids: [{low}, {high}] must rise from 0 or more, to 2³² at most")
    check_length("prompt_tokens", requests.prompt_tokens)
    check_length("max_tokens", requests.max_tokens)
    given = [name for name in ("prompt", "prompts", "prompt_tokens") if getattr(requests, name) is not None]
    if len(given) > 1:
        raise ValueError(f"give one of requests.{' and requests.'.join(given)}")
    if requests.max_tokens is not None and "max_tokens" in requests.options:
        raise ValueError("max_tokens is in requests and in requests.options: give it once")
    if "model_version" in requests.options:
        raise ValueError("requests.options: model_version is a setting of the scenario itself")


def _name(request: GenerateRequest, job_id: str) -> GenerateRequest:
    request.job.job_id = job_id
    return request


def _method(channel: grpc.aio.Channel) -> Any:
    return TextGenerationServiceStub(channel).Generate


def _count(message: GenerateResponse) -> Received:
    tokens = sum(len(delta.token_ids) for delta in message.deltas)
    return Received(tokens, message.usage.prompt_tokens)
