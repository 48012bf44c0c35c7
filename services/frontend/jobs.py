"""Jobs that outlive their calls: submit now, watch from anywhere, later."""

import uuid

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from millrace import tracing
from millrace.errors import Code
from millrace.queue import Ending, JobQueue, JobRecord, JobRef, Result, State, history
from millrace.v1.job_service_pb2 import CancelJobRequest, GetJobRequest, Job
from services.frontend.admission import Admission, job_unknown
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.flight import timing_of
from services.frontend.parse import check_job_id, decode, parse_watch
from services.frontend.relay import Encode, Relays
from services.frontend.rules import Bounds
from services.frontend.status import from_ending, to_status
from services.frontend.submit import parse_submit
from services.frontend.wire import varint

SERVICE = "millrace.v1.JobService"
CANCELLED = Ending(code=Code.CANCELLED, reason="CANCELLED", message="the caller cancelled the job")
OFFSET_TAG, HISTORY_TAG = b"\x08", b"\x39"
RESULT_TAGS = {"generate": b"\x12", "embed": b"\x1a", "classify": b"\x22", "transcribe": b"\x2a", "infer": b"\x32"}
"""JobResult: offset = 1 (varint); generated = 2, embedded, classified, transcribed, inferred = 6 (length-delimited);
history = 7 (fixed64)."""
WITH_HISTORY = ("generate", "transcribe")
"""Tasks whose responses have a field for it, where the worker has put it."""


class Jobs:
    """millrace.v1.JobService."""

    def __init__(self, queue: JobQueue, admission: Admission, relays: Relays, bounds: Bounds) -> None:
        self._queue, self._admission, self._relays, self._bounds = queue, admission, relays, bounds

    def methods(self, border: Border) -> dict[str, Method]:
        return {
            "SubmitJob": border.unary(f"{SERVICE}/SubmitJob", self.submit),
            "GetJob": border.unary(f"{SERVICE}/GetJob", self.get),
            "WatchJob": border.stream(f"{SERVICE}/WatchJob", self.watch),
            "CancelJob": border.unary(f"{SERVICE}/CancelJob", self.cancel),
        }

    async def submit(self, raw: bytes, call: Call) -> Job:
        request = parse_submit(raw, self._bounds)
        call.job_id = request.options.job_id or uuid.uuid4().hex
        target = await self._admission.resolve(call.caller, call.job_id, request)
        with tracing.within("submit", "PRODUCER") as span:
            span.note({"millrace.job_id": call.job_id, "gen_ai.request.model": target.ref.model.name})
            ref = await self._admission.submit(
                target, request, timeout_ms=request.options.timeout_ms, retained=True, wanted_to_deadline=True
            )
        job = await self._describe(ref)
        await call.begin()
        return job

    async def get(self, raw: bytes, call: Call) -> Job:
        request = decode(GetJobRequest, raw, self._bounds.max_request_bytes)
        return describe(await self._find(request.job_id, call))

    async def watch(self, raw: bytes, call: Call) -> None:
        job_id, position = parse_watch(raw, self._bounds)
        record = await self._find(job_id, call)
        with self._relays.open(record.ref) as stream:
            await self._relays.run(call, stream, record.ref, position, wrapping(record.task), attached=True)

    async def cancel(self, raw: bytes, call: Call) -> Job:
        request = decode(CancelJobRequest, raw, self._bounds.max_request_bytes)
        record = await self._find(request.job_id, call)
        await self._queue.end(record.ref, CANCELLED)
        await self._admission.spending.settle(call.caller, record.ref)
        return await self._describe(record.ref)

    async def _find(self, job_id: str, call: Call) -> JobRecord:
        check_job_id(job_id)
        call.job_id = job_id
        return await self._admission.find(call.caller.tenant, job_id)

    async def _describe(self, ref: JobRef) -> Job:
        record = await self._queue.inspect(ref)
        if record is None:
            raise job_unknown(ref.job_id)
        return describe(record)


def describe(record: JobRecord) -> Job:
    job = Job(
        job_id=record.ref.job_id,
        model=record.ref.model.name,
        state=_state(record),
        last_offset=record.last_offset,
        attempts=record.attempts,
        submit_time=_timestamp(record.submit_ms),
        deadline_time=_timestamp(record.deadline_ms),
        timing=timing_of(record),
    )
    if record.ending is not None:
        job.end_time.CopyFrom(_timestamp(record.end_ms))
        job.expire_time.CopyFrom(_timestamp(record.expire_ms))
        ok = record.ending.code is Code.OK
        job.status.CopyFrom(Status() if ok else to_status(from_ending(record.ending)))
    return job


def _state(record: JobRecord) -> Job.State.ValueType:
    if record.ending is None:
        return Job.STATE_WAITING if record.state is State.WAITING else Job.STATE_RUNNING
    ended = {Code.OK: Job.STATE_SUCCEEDED, Code.CANCELLED: Job.STATE_CANCELLED}
    return ended.get(record.ending.code, Job.STATE_FAILED)


def _timestamp(milliseconds: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMilliseconds(milliseconds)
    return timestamp


def wrapping(task: str) -> Encode:
    """Makes a serialised JobResult around a task's serialised response, without parsing it."""
    tag, has_history = RESULT_TAGS[task], task in WITH_HISTORY

    def wrap(result: Result, body: bytes) -> bytes:
        inner = body if has_history else body[: -history.FIELD_BYTES]
        head = OFFSET_TAG + varint(result.offset) + tag + varint(len(inner))
        return head + inner + HISTORY_TAG + result.history

    return wrap
