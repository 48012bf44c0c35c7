"""Generation: the frontend's spine."""

import uuid

from services.frontend.admission import Admission
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.parse import ValidRequest, parse_generate
from services.frontend.relay import Relays
from services.frontend.rules import Bounds

SERVICE = "millrace.v1.TextGenerationService"


class TextGeneration:
    """millrace.v1.TextGenerationService."""

    def __init__(self, admission: Admission, relays: Relays, bounds: Bounds) -> None:
        self._admission, self._relays, self._bounds = admission, relays, bounds

    def methods(self, border: Border) -> dict[str, Method]:
        return {"Generate": border.stream(f"{SERVICE}/Generate", self.generate)}

    async def generate(self, raw: bytes, call: Call) -> None:
        """parse → resolve → open an inbox → submit → relay. The worker's bytes are the answer, as they are."""
        await serve(parse_generate(raw, self._bounds), call, self._admission, self._relays)


async def serve(request: ValidRequest, call: Call, admission: Admission, relays: Relays) -> None:
    """resolve → open an inbox → submit → relay, for any task whose results are a stream."""
    options = request.options
    call.job_id = options.job_id or uuid.uuid4().hex
    target = await admission.resolve(call.caller, call.job_id, request)
    with relays.open(target.ref) as stream:
        ref = await relays.submit(call, stream, target, request)
        await relays.run(call, stream, ref, options.position, lambda _, body: body, attached=bool(options.job_id))
