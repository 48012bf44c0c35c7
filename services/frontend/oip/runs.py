"""One ModelInferRequest's way through the spine: resolve → open an inbox → submit → what its caller is answered."""

from collections.abc import Callable
from dataclasses import dataclass

from millrace.errors import InvalidRequest, Violation
from millrace.oip.inference_pb2 import ModelInferResponse
from millrace.queue import JobRef, ModelVersion, Result
from millrace.v1.generation_pb2 import GenerateResponse
from services.frontend.admission import Admission, Target
from services.frontend.cache import ResponseCache
from services.frontend.call import Call
from services.frontend.oip.infer import AFTER_OFFSET, AskedInfer, echo
from services.frontend.oip.text_answers import TextAnswer
from services.frontend.oip.text_tensors import TextRequest, read_text, takes_text
from services.frontend.relay import Relays
from services.frontend.rules import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A request whose model, or whose job, is known."""

    asked: AskedInfer
    target: Target
    text: TextRequest | None
    """Set where the request is for text."""

    @property
    def model(self) -> ModelVersion:
        return self.target.ref.model


class Gathered(Call):
    """Takes the results of a call that has one answer."""

    def __init__(self, call: Call, answer: TextAnswer) -> None:
        super().__init__(0)
        self._call, self._answer = call, answer
        self.caller = call.caller

    @property
    def remaining_s(self) -> float | None:
        return self._call.remaining_s

    @property
    def wants_flight(self) -> bool:
        return self._call.wants_flight

    async def begin(self) -> None:
        """The call begins when it has its answer."""

    async def send(self, message: bytes) -> None:
        await self.write(message)

    async def write(self, message: bytes) -> None:
        self._answer.add(GenerateResponse.FromString(message))


class Runs:
    def __init__(self, admission: Admission, relays: Relays, bounds: Bounds, cache: ResponseCache) -> None:
        self._admission, self._relays, self._bounds, self._cache = admission, relays, bounds, cache

    async def resolve(self, call: Call, asked: AskedInfer) -> Run:
        """Raises InvalidRequest for a text that was asked for wrongly; tensors are checked when they are submitted."""
        call.job_id = asked.options.job_id or JobRef.anonymous_id()
        target = await self._admission.resolve(call.caller, call.job_id, asked)
        if target.entry is not None:
            is_text = takes_text(target.entry)
        else:
            is_text = (await self._admission.find(call.caller.tenant, call.job_id)).task == "generate"
        if asked.options.position.offset and not is_text:
            raise InvalidRequest(
                [Violation(f"parameters[{AFTER_OFFSET}]", "is for generated text: tensors come at once")]
            )
        return Run(asked=asked, target=target, text=read_text(asked, self._bounds) if is_text else None)

    async def single(self, call: Call, run: Run) -> bytes:
        """The one result of a job of tensors, which the worker has serialised, or an equal request's."""
        cached = await self._cache.look_up(call.caller.tenant, run.target.entry, run.asked)
        if cached.answer is not None:
            return cached.answer + echo(run.asked.message.id)
        with self._relays.open(run.target.ref) as stream:
            ref = await self._relays.submit(call, stream, run.target, run.asked)
            answer = await self._relays.single(call, stream, ref, attached=bool(run.asked.options.job_id))
        cached.keep(answer)
        return answer

    async def whole(self, call: Call, run: Run, text: TextRequest) -> ModelInferResponse:
        """A text, when it has ended."""
        answer = TextAnswer(text)
        gathered = Gathered(call, answer)
        try:
            await self.each(gathered, run, text, lambda _, body: body)
        finally:
            call.ended, call.flight = gathered.ended, gathered.flight
        return answer.response(run.model, run.asked.message.id)

    async def each(self, call: Call, run: Run, text: TextRequest, encode: Callable[[Result, bytes], bytes]) -> None:
        """Sends what `encode` makes of each of a text's results, as they come."""
        options = run.asked.options
        try:
            with self._relays.open(run.target.ref) as stream:
                ref = await self._relays.submit(call, stream, run.target, text.valid)
                await self._relays.run(call, stream, ref, options.position, encode, attached=bool(options.job_id))
        except InvalidRequest as error:
            raise text.rename(error) from error
