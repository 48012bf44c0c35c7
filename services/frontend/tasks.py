"""Embeddings, classifications and transcriptions: typed calls, prepared and read out by the worker."""

import uuid

from services.frontend.admission import Admission
from services.frontend.border import Border, Method
from services.frontend.cache import ResponseCache
from services.frontend.call import Call
from services.frontend.parse import ValidRequest
from services.frontend.relay import Relays
from services.frontend.rules import Bounds
from services.frontend.servicer import serve
from services.frontend.typed import parse_typed, without_job

EMBEDDING = "millrace.v1.EmbeddingService"
CLASSIFICATION = "millrace.v1.ClassificationService"
SPEECH = "millrace.v1.SpeechService"


class Tasks:
    """millrace.v1.EmbeddingService, ClassificationService and SpeechService."""

    def __init__(self, admission: Admission, relays: Relays, bounds: Bounds, cache: ResponseCache) -> None:
        self._admission, self._relays, self._bounds, self._cache = admission, relays, bounds, cache

    def services(self, border: Border) -> dict[str, dict[str, Method]]:
        return {
            EMBEDDING: {"Embed": border.unary(f"{EMBEDDING}/Embed", self.embed)},
            CLASSIFICATION: {"Classify": border.unary(f"{CLASSIFICATION}/Classify", self.classify)},
            SPEECH: {"Transcribe": border.stream(f"{SPEECH}/Transcribe", self.transcribe)},
        }

    async def embed(self, raw: bytes, call: Call) -> bytes:
        return await self.answer(parse_typed("embed", raw, self._bounds), call)

    async def classify(self, raw: bytes, call: Call) -> bytes:
        return await self.answer(parse_typed("classify", raw, self._bounds), call)

    async def transcribe(self, raw: bytes, call: Call) -> None:
        await serve(parse_typed("transcribe", raw, self._bounds), call, self._admission, self._relays)

    async def answer(self, request: ValidRequest, call: Call) -> bytes:
        """resolve → open an inbox → submit → the one result, which the worker has serialised; or an equal request's."""
        call.job_id = request.options.job_id or uuid.uuid4().hex
        target = await self._admission.resolve(call.caller, call.job_id, request)
        cached = await self._cache.look_up(call.caller.tenant, target.entry, request)
        if cached.answer is not None:
            return without_job(request.task, cached.answer)
        with self._relays.open(target.ref) as stream:
            ref = await self._relays.submit(call, stream, target, request)
            answer = await self._relays.single(call, stream, ref, attached=bool(request.options.job_id))
        cached.keep(answer)
        await call.begin()
        return answer
