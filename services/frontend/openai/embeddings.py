"""/v1/embeddings: texts become vectors, as numbers or as the bytes of 32-bit floats."""

import base64
import struct
from typing import Any

from millrace.v1.tasks_pb2 import EmbedRequest, EmbedResponse
from services.frontend.openai.exchange import Exchange
from services.frontend.openai.fields import Fields, parse_object
from services.frontend.openai.options import Options
from services.frontend.parse import raise_any
from services.frontend.tasks import Tasks
from services.frontend.typed import check_embed, valid_typed

FORMATS = ("float", "base64")


async def embed(tasks: Tasks, options: Options, exchange: Exchange) -> None:
    """Raises InvalidRequest, and the job's own ending."""
    request, encoding = read_embeddings(parse_object(exchange.body))
    job = options.make(exchange.named, resumable=bool(exchange.named))
    raise_any(check_embed(request), options.check(job))
    call = exchange.call("", exchange.event)
    body = await tasks.answer(valid_typed("embed", request, job, options.bounds), call)
    exchange.job_id = call.job_id
    await exchange.reply(to_list(request.model, EmbedResponse.FromString(body), encoding))


def read_embeddings(fields: Fields) -> tuple[EmbedRequest, str]:
    """The request, and how its vectors are to be written. Raises InvalidRequest."""
    if fields.get("dimensions") is not None:
        fields.refuse("dimensions", "is not supported: a model has its own")
    if fields.get("input") is None:
        fields.refuse("input", "is required")
    encoding = fields.text("encoding_format") or FORMATS[0]
    if encoding not in FORMATS:
        fields.refuse("encoding_format", f"must be {' or '.join(FORMATS)}")
    name, _, version = fields.required("model").partition("/")
    return EmbedRequest(model=name, model_version=version, texts=fields.texts("input")), encoding


def to_list(model: str, response: EmbedResponse, encoding: str) -> dict[str, Any]:
    """OpenAI's list object: one vector for each text, in their order."""
    vectors = [
        {"object": "embedding", "index": index, "embedding": _write(list(embedding.values), encoding)}
        for index, embedding in enumerate(response.embeddings)
    ]
    usage = {"prompt_tokens": response.tokens, "total_tokens": response.tokens}
    return {"object": "list", "data": vectors, "model": model, "usage": usage}


def _write(values: list[float], encoding: str) -> list[float] | str:
    if encoding == "float":
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
