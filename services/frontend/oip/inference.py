"""Tensors: the Open Inference Protocol, as its clients and Triton's speak it."""

from millrace.errors import InvalidRequest, Violation
from services.frontend.admission import Admission
from services.frontend.border import Border, Method
from services.frontend.cache import ResponseCache
from services.frontend.call import Call
from services.frontend.oip.infer import echo, parse_infer
from services.frontend.oip.runs import Runs
from services.frontend.oip.stream_infer import StreamInfer
from services.frontend.oip.text_tensors import STREAM
from services.frontend.relay import Relays
from services.frontend.rules import Bounds

SERVICE = "inference.GRPCInferenceService"


class Inference:
    """The part of inference.GRPCInferenceService that runs models."""

    def __init__(self, admission: Admission, relays: Relays, bounds: Bounds, cache: ResponseCache) -> None:
        self._runs, self._bounds = Runs(admission, relays, bounds, cache), bounds

    def methods(self, border: Border) -> dict[str, Method]:
        stream = StreamInfer(self._runs, self._bounds, border)
        return {
            "ModelInfer": border.unary(f"{SERVICE}/ModelInfer", self.infer),
            "ModelStreamInfer": border.duplex(f"{SERVICE}/ModelStreamInfer", stream.serve),
        }

    async def infer(self, raw: bytes, call: Call) -> bytes:
        """parse → resolve → open an inbox → submit → the one answer: the worker's own bytes, or the whole text."""
        asked = parse_infer(raw, self._bounds)
        run = await self._runs.resolve(call, asked)
        if run.text is not None:
            if run.text.stream:
                raise InvalidRequest([Violation(f"inputs[{STREAM}]", "must be false here: call ModelStreamInfer")])
            answer = (await self._runs.whole(call, run, run.text)).SerializeToString()
        else:
            answer = await self._runs.single(call, run)
        if not asked.options.job_id:
            return answer
        await call.begin()
        return answer + echo(asked.message.id)
