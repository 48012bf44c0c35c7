"""Tensors: the Open Inference Protocol, as its clients and Triton's speak it."""

from millrace.queue import JobRef
from services.frontend.admission import Admission
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.infer import parse_infer
from services.frontend.relay import Relays
from services.frontend.rules import Bounds
from services.frontend.wire import varint

SERVICE = "inference.GRPCInferenceService"
ID_TAG = b"\x1a"
"""ModelInferResponse: id = 3 (length-delimited)."""


class Inference:
    """The part of inference.GRPCInferenceService that runs models."""

    def __init__(self, admission: Admission, relays: Relays, bounds: Bounds) -> None:
        self._admission, self._relays, self._bounds = admission, relays, bounds

    def methods(self, border: Border) -> dict[str, Method]:
        return {"ModelInfer": border.unary(f"{SERVICE}/ModelInfer", self.infer)}

    async def infer(self, raw: bytes, call: Call) -> bytes:
        """parse → resolve → open an inbox → submit → the one result, which the worker has serialised."""
        request = parse_infer(raw, self._bounds)
        options = request.options
        call.job_id = options.job_id or JobRef.anonymous_id()
        target = await self._admission.resolve(call.tenant, call.job_id, request)
        with self._relays.open(target.ref) as stream:
            ref = await self._relays.submit(call, stream, target, request)
            answer = await self._relays.single(call, stream, ref, attached=bool(options.job_id))
        if not options.job_id:
            return answer
        await call.begin()
        return _echo(request.message.id, answer)


def _echo(request_id: str, answer: bytes) -> bytes:
    """The answer under this request's id: a job may have been started by a request with another one. Of a field that is
    there twice the last one counts."""
    text = request_id.encode()
    return answer + ID_TAG + varint(len(text)) + text
