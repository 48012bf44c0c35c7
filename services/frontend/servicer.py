"""Generation: the frontend's spine."""

import uuid

from millrace.errors import MillraceError, Unavailable
from millrace.queue import JobRef
from services.frontend.admission import Admission, Target
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.interest import Stream
from services.frontend.parse import ValidGenerate, ValidOptions, parse_generate
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
        request = parse_generate(raw, self._bounds)
        options = request.options
        call.job_id = options.job_id or uuid.uuid4().hex
        target = await self._admission.resolve(call.tenant, call.job_id, request)
        with self._relays.open(target.ref) as stream:
            ref = await self._submit(target, request, call, stream)
            await self._relays.run(
                call, stream, ref, options.position, lambda _, body: body, attached=bool(options.job_id)
            )

    async def _submit(self, target: Target, request: ValidGenerate, call: Call, stream: Stream) -> JobRef:
        options = request.options
        stream.wanted, stream.retained = True, bool(options.job_id or options.resume_window_ms)
        try:
            return await self._admission.submit(
                target,
                request,
                timeout_ms=_timeout_ms(options, call.remaining_s),
                retained=stream.retained,
                watcher=self._relays.watcher,
            )
        except MillraceError as error:
            stream.wanted = isinstance(error, Unavailable)
            raise


def _timeout_ms(options: ValidOptions, remaining_s: float | None) -> int:
    """A job that nobody can come back for ends with its call's deadline."""
    if options.resume_window_ms or remaining_s is None:
        return options.timeout_ms
    return max(1, min(options.timeout_ms, round(remaining_s * 1000)))
