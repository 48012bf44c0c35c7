"""What the playground asks for: a file becomes labels, a sound its transcript, a job that nobody wants any more ends.

Text is generated over OpenAI's API.
"""

from functools import partial

from millrace.errors import InvalidRequest, Violation
from millrace.queue import JobQueue
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.tasks_pb2 import ClassifyRequest, ClassifyResponse, TranscribeRequest, TranscribeResponse
from services.frontend.admission import Admission
from services.frontend.jobs import CANCELLED
from services.frontend.openai.exchange import Exchange
from services.frontend.openai.fields import to_json
from services.frontend.parse import check_job_id, raise_any
from services.frontend.relay import Relays
from services.frontend.rules import Bounds
from services.frontend.servicer import serve
from services.frontend.tasks import Tasks
from services.frontend.typed import check_classify, check_transcribe, valid_typed

INPUTS = ("image", "audio", "text")
MOST_LABELS = 10
DONE = b"data: [DONE]\n\n"


async def classify(tasks: Tasks, bounds: Bounds, exchange: Exchange) -> None:
    """The query says for which model, and what the body is: model=NAME[/VERSION]&input=image.

    Raises:
        InvalidRequest: neither says what would do.
        MillraceError: the job's own ending.
    """
    request = read_classify(exchange)
    raise_any(check_classify(request))
    call = exchange.call("", exchange.event)
    body = await tasks.answer(valid_typed("classify", request, JobOptions(), bounds), call)
    exchange.job_id = call.job_id
    labels = ClassifyResponse.FromString(body).labels
    await exchange.reply({"labels": [{"name": label.name, "score": label.score} for label in labels]})


def read_classify(exchange: Exchange) -> ClassifyRequest:
    """Raises InvalidRequest."""
    name, version = _model(exchange)
    kind = exchange.request.query_params.get("input", INPUTS[0])
    if kind not in INPUTS:
        raise InvalidRequest([Violation("input", f"must be one of {', '.join(INPUTS)}")])
    request = ClassifyRequest(model=name, model_version=version, top_k=MOST_LABELS)
    try:
        setattr(request, kind, exchange.body.decode() if kind == "text" else exchange.body)
    except UnicodeDecodeError:
        raise InvalidRequest([Violation("text", "must be UTF-8")]) from None
    return request


async def transcribe(admission: Admission, relays: Relays, bounds: Bounds, exchange: Exchange) -> None:
    """The body is a sound; its pieces are events. Raises InvalidRequest, and the job's own ending."""
    name, version = _model(exchange)
    request = TranscribeRequest(model=name, model_version=version, audio=exchange.body)
    raise_any(check_transcribe(request))
    call = exchange.call("", partial(_tell_piece, exchange))
    async with exchange.kept_alive():
        await serve(valid_typed("transcribe", request, JobOptions(), bounds), call, admission, relays)
    await exchange.event(DONE)
    await exchange.end()


async def cancel(queue: JobQueue, admission: Admission, exchange: Exchange) -> None:
    """Ends the job that the query names, at once: its stream would leave it to its resume window. Raises NotFound."""
    job_id = exchange.request.query_params.get("job", "")
    check_job_id(job_id)
    record = await admission.find(exchange.caller.tenant, job_id)
    await queue.end(record.ref, CANCELLED)
    await exchange.reply({"job_id": job_id})


def _model(exchange: Exchange) -> tuple[str, str]:
    """Its name, and its version, empty where none is named."""
    name, _, version = exchange.request.query_params.get("model", "").partition("/")
    return name, version


async def _tell_piece(exchange: Exchange, body: bytes) -> None:
    response = TranscribeResponse.FromString(body)
    await exchange.event(f"data: {to_json({'text': response.text})}\n\n".encode())
