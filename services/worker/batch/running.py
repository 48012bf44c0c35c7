"""One batch on one session: run → split, and each job's own part of it as a response."""

from collections.abc import Sequence

import onnxruntime as ort
from google.protobuf.message import Message

from millrace.engine import Failure, Output
from millrace.errors import Code
from services.worker.batch.forming import Batch, Item, cut
from services.worker.batch.graph import Array, Port, Ports
from services.worker.batch.processor import Failed

MESSAGE_CHARACTERS = 500
Produced = Sequence[tuple[Port, Array]]
"""A run's outputs, of all its rows."""


def run(session: ort.InferenceSession, ports: Ports, batch: Batch) -> list[Output]:
    """A batch that fails is run again in halves, so that a request that makes it fail is left alone with that. Raises
    what leaves the device unusable."""
    wanted = batch.wanted()
    outputs = [port for port in ports.outputs if not wanted or port.name in wanted]
    try:
        arrays = session.run([port.name for port in outputs], batch.feed)
        if ports.batched and any(array.shape[:1] != (batch.rows,) for array in arrays):
            raise ValueError(f"the graph gives other than {batch.rows} rows for {batch.rows}")
        if any(array.ndim < len(port.dims) for port, array in zip(outputs, arrays, strict=True)):
            raise ValueError("the graph gives an output with fewer dimensions than it says")
    except Exception as error:
        if _is_fatal(error):
            raise
        if len(batch.items) > 1:
            return [output for half in batch.halves() for output in run(session, ports, half)]
        (item,) = batch.items
        return [Output(lease=item.lease, last=True, failure=_failure(error), cost=item.cost)]
    return _split(batch, ports, list(zip(outputs, arrays, strict=True)))


def _split(batch: Batch, ports: Ports, produced: Produced) -> list[Output]:
    outputs, row = [], 0
    for item in batch.items:
        answer = _answer_at_once if item.part.at_once else _answer
        if (output := answer(item, ports, produced, row)) is not None:
            outputs.append(output)
        row += item.rows
    return outputs


def _answer(item: Item, ports: Ports, produced: Produced, row: int) -> Output:
    def result() -> Message:
        message = _respond(item, ports, produced, row)
        assert message is not None, "only parts that are answered at once may give none"
        return message

    return Output(lease=item.lease, result=result, last=item.part.last, cost=item.cost)


def _answer_at_once(item: Item, ports: Ports, produced: Produced, row: int) -> Output | None:
    """None where the job goes on without a response."""
    try:
        message = _respond(item, ports, produced, row)
    except Exception as error:
        failure = error.failure if isinstance(error, Failed) else _failure(error)
        return Output(lease=item.lease, last=True, failure=failure, cost=item.cost)
    if message is None and not item.part.last:
        return None
    return Output(lease=item.lease, result=message, last=item.part.last, cost=item.cost)


def _respond(item: Item, ports: Ports, produced: Produced, row: int) -> Message | None:
    own = [
        (port, cut(port, array, item, row, ports))
        for port, array in produced
        if not item.part.wanted or port.name in item.part.wanted
    ]
    return item.processor.respond(item.part, own)


def _is_fatal(error: Exception) -> bool:
    """A CUDA error other than out-of-memory leaves the device unusable for this process."""
    text = str(error)
    return "CUDA" in text and "out of memory" not in text.lower() and "Failed to allocate" not in text


def _failure(error: Exception) -> Failure:
    message = f"the model failed on this request: {error}"[:MESSAGE_CHARACTERS]
    return Failure(code=Code.INTERNAL, reason="MODEL_FAILED", message=message)
