"""What must hold of an answer to a typed request, said without the code that gives it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from millrace.engine import Output
from millrace.v1.tasks_pb2 import (
    ClassifyRequest,
    ClassifyResponse,
    EmbedRequest,
    EmbedResponse,
    TranscribeResponse,
)
from tests.fuzz.target import must

TOLERANCE = 1e-4
"""Of requests that were padded otherwise."""


def check(task: str, payload: bytes, outputs: Sequence[Output]) -> None:
    """`outputs`: of one job, which may have failed behind some of them."""
    responses = found(outputs)
    if task == "transcribe":
        check_transcription(responses)
    elif outputs[-1].failure is None:
        must(len(responses) == 1, f"{len(responses)} responses")
        (check_embedding if task == "embed" else check_classification)(payload, responses[0])


def check_embedding(payload: bytes, response: EmbedResponse) -> None:
    texts = EmbedRequest.FromString(payload).texts
    must(len(response.embeddings) == len(texts), f"{len(response.embeddings)} embeddings of {len(texts)} texts")
    must(response.tokens >= len(texts), f"{response.tokens} tokens")
    must(len({len(one.values) for one in response.embeddings}) == 1, "embeddings of several sizes")
    must(all(math.isfinite(value) for one in response.embeddings for value in one.values), "a value is not finite")


def check_classification(payload: bytes, response: ClassifyResponse) -> None:
    top_k, scores = ClassifyRequest.FromString(payload).top_k, [label.score for label in response.labels]
    must(scores and (not top_k or len(scores) <= top_k), f"{len(scores)} labels of {top_k}")
    must(all(0 <= score <= 1 for score in scores) and scores == sorted(scores, reverse=True), f"scores {scores}")
    must(len({label.name for label in response.labels}) == len(scores), "a label twice")
    must(top_k or abs(sum(scores) - 1) < TOLERANCE, f"scores {scores}")


def check_transcription(responses: Sequence[TranscribeResponse]) -> None:
    """Stretches of text, one behind the other."""
    end = 0
    for response in responses:
        begins, ends = response.start.ToNanoseconds(), response.end.ToNanoseconds()
        must(0 <= end <= begins <= ends, f"from {begins} to {ends} ns, behind {end}")
        end = begins


def check_same(outputs: Sequence[Output], known: Sequence[Output]) -> None:
    """The same request, alone and in company."""
    must(outputs[-1].failure is None, f"a good request fails beside others: {outputs[-1].failure}")
    for response, before in zip(found(outputs), found(known), strict=True):
        must(_names(response) == _names(before), f"a good request gives {_names(response)} and not {_names(before)}")
        must(np.allclose(_values(response), _values(before), atol=TOLERANCE), "a good request gets other values")


def found(outputs: Sequence[Output]) -> list[Any]:
    results = [output.result() if callable(output.result) else output.result for output in outputs]
    return [result for result in results if result is not None]


def _names(response: Any) -> object:
    if isinstance(response, TranscribeResponse):
        return response.text, response.start.ToNanoseconds(), response.end.ToNanoseconds()
    return [label.name for label in response.labels] if isinstance(response, ClassifyResponse) else None


def _values(response: Any) -> Sequence[float]:
    if isinstance(response, EmbedResponse):
        return [value for one in response.embeddings for value in one.values]
    return [label.score for label in response.labels] if isinstance(response, ClassifyResponse) else []
