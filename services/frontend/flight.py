"""A job's flight record, where the caller asks for it: where its time went, in which worker's hands it was.

gRPC   metadata `millrace-flight: 1` → the trailer `millrace-flight-bin`, a serialised millrace.v1.Timing, of calls
       that end with their job; not of ModelStreamInfer
HTTP   the header of the same name → `server-timing` (https://www.w3.org/TR/server-timing/), of whole answers; a
       stream's headers are gone by then
Job    always in `timing`, with GetJob
"""

from millrace.errors import Unavailable
from millrace.queue import JobQueue, JobRecord, JobRef
from millrace.telemetry import milliseconds
from millrace.v1.job_pb2 import Timing

KEY, TRAILER_KEY = "millrace-flight", "millrace-flight-bin"
WANTED, HEADER = "1", "server-timing"


def timing_of(record: JobRecord) -> Timing:
    """The worker's that ended the job; else how long it waited for its first worker, once that is known, and how often
    it was held and given back."""
    if record.timing:
        return Timing.FromString(record.timing)
    timing = Timing(attempts=record.attempts, preemptions=record.preemptions)
    if waited_until := record.first_take_ms or record.end_ms:
        timing.queued.FromMilliseconds(max(waited_until - record.submit_ms, 0))
    return timing


async def read_flight(queue: JobQueue, ref: JobRef) -> Timing | None:
    """Of a job that has ended; None where it is forgotten already, or the queue does not answer."""
    try:
        record = await queue.inspect(ref)
    except Unavailable:
        return None
    return timing_of(record) if record is not None else None


def trailer(timing: Timing | None) -> tuple[tuple[str, bytes], ...]:
    return ((TRAILER_KEY, timing.SerializeToString()),) if timing is not None else ()


def server_timing(timing: Timing) -> str:
    """Milliseconds, by name."""
    parts = {
        "queued": timing.queued,
        "batching": timing.batching,
        "first-output": timing.first_output,
        "remaining-output": timing.remaining_output,
    }
    spent = [f"{name};dur={milliseconds(part):g}" for name, part in parts.items()]
    return ", ".join([*spent, f'attempts;desc="{timing.attempts}"', f'preemptions;desc="{timing.preemptions}"'])
