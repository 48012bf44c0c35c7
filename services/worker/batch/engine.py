"""Batches form while the device is busy: decode → lay out → run → split.

What a request means is its processor's business (processor.py). Requests are decoded and laid out where they are added,
while a step runs; a step closes the batch that has waited longest and runs it on a session of its own; the responses
are made from the outputs while the next step runs. Nothing waits for a fuller batch unless the model's file says so.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnxruntime as ort
import structlog

from millrace.engine import Capacity, EngineContext, Failure, Output, Signature, Work
from millrace.errors import Code
from services.worker import tasks, untrusted
from services.worker.batch import bfloat16, config, graph
from services.worker.batch.codec import Tensors
from services.worker.batch.forming import Batch, Forming, Item, Key, check_padding, key_of, row_bytes
from services.worker.batch.processor import Part, Processor, Rejected
from services.worker.batch.running import run
from services.worker.session import open_session

HELD_BYTES = 256 << 20
"""Payloads that wait in the engine; beyond it no further job is taken."""
PADDING_BYTES = 64 << 20
"""What padding may add to one request: sizes that are small to say could else ask for any amount of it."""
LABELS_BYTES = 8 << 20
INFER = "infer"
log = structlog.get_logger()


class BatchEngine:
    """Implements `millrace.engine.Engine` for graphs without state."""

    def __init__(self, context: EngineContext) -> None:
        """Raises ValueError where the graph cannot be served, and ONNX Runtime's errors."""
        self.config = config.read(context, os.cpu_count() or 1)
        self._model, self._version = context.folder.parent.name, context.folder.name
        sessions, widened = self._sessions()
        self._idle = deque(sessions)
        self.ports = graph.read(self._idle[0], widened)
        check_padding(self.ports, self.config.padding)
        if not self.ports.batched and self.config.max_rows > 1:
            log.info("model.unbatched", model=f"{self._model}/{self._version}", reason="its rows are not independent")
        self._processors: Mapping[str, Processor] = {
            INFER: Tensors(self._model, self._version, self.ports, self._labels(context)),
            **tasks.processors(context, self.ports),
        }
        self._news = threading.Condition()
        self._forming: list[Forming] = []
        """What waits, by key; only the newest of a key takes further requests."""
        self._held: dict[str, Item] = {}
        self._held_rows = self._held_bytes = 0
        self._ended: dict[str, Output] = {}
        """Jobs that end without a run, by lease."""
        self._counted = dict.fromkeys(("batches", "rows", "rows_after_abort"), 0)

    @property
    def lanes(self) -> int:
        return self.config.sessions

    @property
    def signature(self) -> Signature:
        return replace(self.ports.signature(self.config.max_rows), tasks=tuple(self._processors))

    def capacity(self) -> Capacity:
        """What the sessions run, and as much that is laid out meanwhile."""
        room = 2 * self.config.sessions * (self.config.max_rows if self.ports.batched else 2)
        if self._held_bytes >= HELD_BYTES:
            return Capacity(jobs=0)
        return Capacity(jobs=max(room - self._held_rows, 0), payload_bytes=HELD_BYTES - self._held_bytes)

    def counters(self) -> dict[str, float]:
        """batches; rows: all that ran, and of them those whose jobs were aborted meanwhile."""
        with self._news:
            return dict(self._counted)

    def add(self, work: Work) -> None:
        try:
            processor = self._processor(work.task)
            parts = processor.parts(work)
            if (part := next(parts, None)) is None:
                self._end(Output(lease=work.lease, last=True))
                return
            item = Item(
                lease=work.lease,
                processor=processor,
                part=part,
                rest=parts,
                rows=self._rows(part),
                payload_bytes=len(work.request),
                since=time.monotonic(),
            )
            key = self._key(item)
        except Exception as error:
            self._end(Output(lease=work.lease, last=True, failure=_not_prepared(error)))
            return
        with self._news:
            self._line_up(item, key)

    def abort(self, lease: str) -> None:
        with self._news:
            self._ended.pop(lease, None)
            if (item := self._held.get(lease)) is not None:
                item.aborted = True
                self._release(item)

    def step(self) -> Sequence[Output] | None:
        with self._news:
            ended, self._ended = list(self._ended.values()), {}
            batch = None if ended else self._next()
        if batch is None:
            return ended or None
        session, began = self._idle.pop(), time.monotonic()
        try:
            outputs = run(session, self.ports, batch)
        finally:
            self._idle.append(session)
        for output in outputs:
            output.began = began
        over = {output.lease for output in outputs if output.last}
        with self._news:
            self._count(batch)
            for item in batch.items:
                if item.part.last or item.lease in over:
                    self._release(item)
        self._go_on([item for item in batch.items if not item.part.last and item.lease not in over])
        return outputs

    def _sessions(self) -> tuple[list[ort.InferenceSession], frozenset[str]]:
        """One for each lane, and their ports that stand for BF16. On a CPU it is the same one: its runs then share the
        weights, and the caches that hold them."""
        model, widened = self.config.graph.read_bytes(), frozenset[str]()
        first = self._open(model)
        if bfloat16.is_at_border(first):
            model, widened = bfloat16.widen(model)
            first = self._open(model)
        if self.config.device == "cpu":
            return [first] * self.config.sessions, widened
        return [first, *(self._open(model) for _ in range(self.config.sessions - 1))], widened

    def _open(self, model: bytes) -> ort.InferenceSession:
        folder = self.config.graph.parent
        return open_session(model, device=self.config.device, threads=self.config.threads, weights=folder, strict=False)

    def _labels(self, context: EngineContext) -> dict[str, list[str]]:
        """By output, what its values are called. Raises ValueError for one that there is not."""
        named: dict[str, str] = context.config["labels"]
        if unknown := named.keys() - {port.name for port in self.ports.outputs}:
            raise ValueError(f"labels.{min(unknown)}: the graph has no such output")
        return {output: untrusted.read_lines(context.folder / file, LABELS_BYTES) for output, file in named.items()}

    def _processor(self, task: str) -> Processor:
        if (processor := self._processors.get(task or INFER)) is None:
            raise Rejected("", f"the model takes {', '.join(sorted(self._processors))}, not {task}")
        return processor

    def _rows(self, part: Part) -> int:
        rows: int = next(iter(part.feed.values())).shape[0] if self.ports.batched else 1
        if not 1 <= rows <= self.config.max_rows:
            raise Rejected("inputs", f"a request has 1 to {self.config.max_rows} rows, not {rows}")
        return rows

    def _line_up(self, item: Item, key: Key) -> None:
        """Lays a part out behind the others of its key. The lock is held."""
        self._hold(item)
        newest = next((forming for forming in reversed(self._forming) if forming.key == key), None)
        if newest is None or not newest.has_room_for(item):
            newest = Forming(self.ports, self.config, key)
            self._forming.append(newest)
        newest.append(item)
        self._news.notify()

    def _go_on(self, items: Sequence[Item]) -> None:
        """Lines up what comes after parts that ran and were not their jobs' last."""
        for item in items:
            try:
                part = next(item.rest)
                rows = self._rows(part)
                following = replace(item, part=part, rows=rows, rows_before=item.cost, since=time.monotonic())
                key = self._key(following)
            except Exception as error:
                with self._news:
                    self._release(item)
                if not item.aborted:
                    self._end(Output(lease=item.lease, last=True, failure=_not_prepared(error)))
                continue
            with self._news:
                if not item.aborted:
                    self._release(item)
                    self._line_up(following, key)

    def _key(self, item: Item) -> Key:
        key = key_of(self.ports, self.config, item)
        padding = row_bytes(self.ports, key) * item.rows - sum(array.nbytes for array in item.part.feed.values())
        if padding > PADDING_BYTES:
            raise Rejected("inputs", f"sizes that are padded with {padding} bytes; at most {PADDING_BYTES} are")
        return key

    def _end(self, output: Output) -> None:
        with self._news:
            self._ended[output.lease] = output
            self._news.notify()

    def _count(self, batch: Batch) -> None:
        self._counted["batches"] += 1
        self._counted["rows"] += batch.rows
        self._counted["rows_after_abort"] += sum(item.rows for item in batch.items if item.aborted)

    def _hold(self, item: Item) -> None:
        self._held[item.lease] = item
        self._held_rows += item.rows
        self._held_bytes += item.payload_bytes

    def _release(self, item: Item) -> None:
        if self._held.pop(item.lease, None) is not None:
            self._held_rows -= item.rows
            self._held_bytes -= item.payload_bytes

    def _next(self) -> Batch | None:
        """From the batch that has waited longest, of those that need not wait for more. The lock is held, and let go
        while all of them wait."""
        while self._forming:
            now = time.monotonic()
            by_age = sorted(self._forming, key=lambda forming: forming.since)
            ripe = next((forming for forming in by_age if self._is_ripe(forming, now)), None)
            if ripe is None:
                self._news.wait(by_age[0].since + self.config.delay_s - now)
                continue
            batch = ripe.take(self._rows_of_a_run(ripe))
            if not ripe.rows:
                self._forming.remove(ripe)
            if batch is not None:
                return batch
        return None

    def _is_ripe(self, forming: Forming, now: float) -> bool:
        preferred = self.config.preferred_rows
        enough = forming.rows >= preferred[0] if preferred else forming.full
        return enough or now >= forming.since + self.config.delay_s

    def _rows_of_a_run(self, forming: Forming) -> int:
        """The largest preferred number that waits; else what does."""
        preferred = [rows for rows in self.config.preferred_rows if rows <= forming.rows]
        return preferred[-1] if preferred else self._share()

    def _share(self) -> int:
        """How many rows a lane takes: what waits is shared out, so that none runs for long while another rests."""
        if self.config.delay_s:
            return self.config.max_rows
        return -(-sum(forming.rows for forming in self._forming) // self.lanes)


def _not_prepared(error: Exception) -> Failure:
    """Whatever it is about a request that its processor cannot take, others' requests go on."""
    if isinstance(error, Rejected):
        return error.failure
    log.exception("request.not_prepared")
    return Failure(code=Code.INTERNAL, reason="REQUEST_FAILED", message="the request could not be prepared")
