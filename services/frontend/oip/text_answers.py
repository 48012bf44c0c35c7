"""What a generation has given, as the output tensors of services.frontend.oip.text_tensors."""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from millrace.oip.inference_pb2 import ModelInferResponse
from millrace.queue import ModelVersion
from millrace.tensors import pack_bytes
from millrace.v1.generation_pb2 import CompletionDelta, FinishReason, GenerateResponse, TokenLogprobs
from services.frontend.oip.text_tensors import (
    FINISH_REASON,
    LOGPROBS,
    OUTPUT_TOKENS,
    TEXT_OUTPUT,
    TEXT_OUTPUTS,
    TextRequest,
)

DATATYPES = {spec.name: spec.datatype for spec in TEXT_OUTPUTS}
UNFINISHED = "None"


@dataclass(slots=True)
class Completion:
    """What is new of one completion."""

    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    finish_reason: str = UNFINISHED
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def add(self, delta: CompletionDelta) -> None:
        self.texts.append(delta.text)
        self.tokens += len(delta.token_ids)
        self.logprobs += map(_describe, delta.logprobs)
        if delta.finish_reason:
            self.finish_reason = _name(delta.finish_reason)


class TextAnswer:
    """Gathers a generation's results; a stream makes a new one for each."""

    def __init__(self, request: TextRequest) -> None:
        self._request = request
        self._completions = [Completion() for _ in range(request.completions)]

    def add(self, result: GenerateResponse) -> None:
        """The first of a job's results brings the prompt along, where that is asked for."""
        if result.offset == 1:
            for completion in self._completions:
                completion.texts.append(self._request.prefix)
        for delta in result.deltas:
            if delta.index < len(self._completions):
                self._completions[delta.index].add(delta)

    def response(self, model: ModelVersion, request_id: str) -> ModelInferResponse:
        answer = ModelInferResponse(model_name=model.name, model_version=model.version, id=request_id)
        for name in self._request.outputs:
            answer.outputs.add(name=name, datatype=DATATYPES[name], shape=[len(self._completions)])
            answer.raw_output_contents.append(self._raw(name))
        return answer

    def _raw(self, name: str) -> bytes:
        if name == OUTPUT_TOKENS:
            return struct.pack(f"<{len(self._completions)}I", *(one.tokens for one in self._completions))
        return pack_bytes([text.encode() for text in self._texts(name)])

    def _texts(self, name: str) -> Iterable[str]:
        for one in self._completions:
            if name == TEXT_OUTPUT:
                yield "".join(one.texts)
            elif name == FINISH_REASON:
                yield one.finish_reason
            elif name == LOGPROBS:
                yield json.dumps(one.logprobs) if self._request.has_logprobs else "null"


def _describe(token: TokenLogprobs) -> dict[str, Any]:
    """The drawn token first, then the most likely ones, each once, by their ids: as vLLM's back end has them, but for
    their ranks."""
    tokens: list[TokenLogprobs | TokenLogprobs.Candidate] = [token, *token.top]
    return {
        str(one.token_id): {"logprob": one.logprob, "decoded_token": one.token.decode(errors="replace")}
        for one in tokens
    }


def _name(reason: int) -> str:
    try:
        return FinishReason.Name(reason).removeprefix("FINISH_REASON_").lower()  # type: ignore[arg-type]
    except ValueError:
        return "stop"
