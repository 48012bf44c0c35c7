"""Continuous batching: sequences join and leave at every step.

A step is plan → run → sample → advance. It decodes one token for each decoding sequence and prefills prompts in
chunks, oldest first, within a budget of prompt tokens (one chunk, unless the model's file says more), so that a long
prompt never makes the others wait. The borders of chunks are fixed multiples, whatever the load. The last chunk of a
prompt yields the first token, in the same step.

What another worker has written of a completion is prefilled behind the prompt, or replayed: a replaying sequence is a
decoding one whose next tokens are known. Its cache is then what it was there, bit for bit where the CPU is of the same
kind, and so is whatever follows.
"""

import itertools
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.engine import Capacity, EngineContext, Failure, Output, Signature, Work
from millrace.errors import Code
from services.worker.arrivals import Arrivals
from services.worker.generation import config, messages
from services.worker.generation.decoder import Decoder
from services.worker.generation.rows import Rows, Sampling
from services.worker.generation.sampler import INVALID, Sampler
from services.worker.generation.sequence import LogMismatch, Sequence
from services.worker.generation.slots import SlotTable
from services.worker.generation.text import Vocabulary

NAN = Failure(code=Code.INTERNAL, reason="NAN_LOGITS", message="the model's output was not a number")
MISMATCH = Failure(code=Code.DATA_LOSS, reason="LOG_MISMATCH", message="earlier results do not fit this model's text")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a prompt: positions `start` to `end` of the sequence in `slot`."""

    slot: int
    sequence: Sequence
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: decode the first `decoding` slots, run the chunks, then sample the first `rows` slots, which besides
    the decoding ones are those whose last chunk is among them."""

    decoding: int
    chunks: Ordered[Chunk]
    rows: int


class GenerationEngine:
    """Implements `millrace.engine.Engine` for decoder graphs of the GroupQueryAttention dialect.

    Requests are parsed where they are added; whatever touches the slots waits for the next step.
    """

    lanes = 1
    signature = Signature()

    def __init__(self, context: EngineContext) -> None:
        """Raises ValueError where the model's files contradict each other, and ONNX Runtime's errors."""
        self.config = config.read(context)
        self._vocabulary = Vocabulary(self.config.decoder.tokenizer)
        self._decoder = Decoder(self.config, device=context.device, threads=context.threads)
        self._sampler = Sampler(self._decoder.logits, threads=context.threads)
        self._rows = Rows(self.config.slots)
        self._table = SlotTable[Sequence]()
        self._by_lease: dict[str, Sequence] = {}
        self._arrivals = Arrivals[Sequence]()
        self._warm_up()

    @property
    def memory_bytes(self) -> int:
        """What sequences have on the device, allocated once: the KV cache and the logits."""
        return self._decoder.memory_bytes

    def capacity(self) -> Capacity:
        return Capacity(jobs=max(self.config.slots - len(self._arrivals), 0))

    def add(self, work: Work) -> None:
        try:
            task = messages.parse(work.lease, work.request, self.config, self._vocabulary)
            logged = messages.read_log(work.results)
            sequence = Sequence(task, self._vocabulary.detokenizer())
            sequence.resume(logged, replay=self.config.replays)
        except messages.Rejected as rejected:
            self._arrivals.end(Output(lease=work.lease, last=True, failure=rejected.failure))
        except LogMismatch:
            self._arrivals.end(Output(lease=work.lease, last=True, failure=MISMATCH))
        else:
            if logged.finished or sequence.last is not None:
                self._arrivals.end(_end(sequence, is_logged=logged.finished))
            else:
                self._arrivals.join(work.lease, sequence)

    def abort(self, lease: str) -> None:
        self._arrivals.leave(lease)

    def step(self) -> list[Output] | None:
        ended = self._arrivals.take(self._join, self._forget)
        if not self._table:
            return ended or None
        plan = self._plan()
        self._run(plan)
        token_ids = self._sample(plan)
        return ended + self._advance(plan, token_ids)

    def _join(self, sequence: Sequence) -> None:
        self._by_lease[sequence.task.lease] = sequence
        self._table.join(sequence)

    def _forget(self, lease: str) -> None:
        if lease in self._by_lease:
            self._leave(self._by_lease[lease])

    def _plan(self) -> Plan:
        decoding = rows = self._table.decoding
        chunks: list[Chunk] = []
        budget = self.config.step_tokens
        for slot, sequence in enumerate(self._table.occupants[decoding : self.config.slots], decoding):
            for start, end in self._borders(sequence):
                budget -= end - start
                if budget < 0:
                    return Plan(decoding, chunks, rows)
                chunks.append(Chunk(slot, sequence, start, end))
            rows += 1
        return Plan(decoding, chunks, rows)

    def _borders(self, sequence: Sequence) -> list[tuple[int, int]]:
        """What is left to prefill, cut at multiples of the chunk's size."""
        size, length = self.config.prefill_chunk_tokens, len(sequence.token_ids)
        return [(start, min(start + size, length)) for start in range(sequence.prefilled, length, size)]

    def _run(self, plan: Plan) -> None:
        rows = self._rows
        if plan.decoding:
            self._decoder.decode(rows.token_ids[: plan.decoding], rows.filled[: plan.decoding])
            rows.filled[: plan.decoding] += 1
        for chunk in plan.chunks:
            self._decoder.prefill(chunk.slot, chunk.sequence.token_ids[chunk.start : chunk.end], chunk.start)
            chunk.sequence.prefilled = chunk.end

    def _sample(self, plan: Plan) -> npt.NDArray[np.int64]:
        """The next token of each row that has logits; of no meaning where it replays."""
        occupants = self._table.occupants
        for slot in range(plan.decoding, plan.rows):
            sequence = occupants[slot]
            self._rows.place(
                slot,
                sequence.task.sampling,
                filled=len(sequence.token_ids),
                position=sequence.position,
            )
        self._table.promote(plan.rows - plan.decoding)
        if all(sequence.replay for sequence in occupants[: plan.rows]):
            return np.zeros(plan.rows, np.int64)
        bans = [(slot, banned) for slot in range(plan.rows) if (banned := occupants[slot].banned)]
        return self._sampler.sample(self._rows, plan.rows, bans)

    def _advance(self, plan: Plan, token_ids: npt.NDArray[np.int64]) -> list[Output]:
        """Each row's newest token: news of its job, unless the log knows it."""
        outputs: list[Output] = []
        for slot, token_id in enumerate(token_ids.tolist()):
            sequence = self._table.occupants[slot]
            if sequence.replay:
                token_ids[slot] = sequence.replay.popleft()
            else:
                outputs.append(_output(sequence, token_id))
        self._rows.token_ids[: plan.rows, 0] = token_ids
        self._rows.position[: plan.rows] += np.uint64(1)
        for output in reversed(outputs):
            if output.last:
                self._leave(self._by_lease[output.lease])
        return outputs

    def _leave(self, sequence: Sequence) -> None:
        del self._by_lease[sequence.task.lease]
        self._arrivals.freed(sequence.task.lease)
        for move in self._table.leave(sequence):
            moved = self._table.occupants[move.target]
            if moved.filled:
                self._decoder.cache.move(move.source, move.target, moved.filled)
                self._rows.move(move.source, move.target)

    def _warm_up(self) -> None:
        """Each kind of run once, so that no job pays for what the runtime sets up on first use."""
        token_ids, slots = np.zeros(1, np.int64), self.config.slots
        self._decoder.prefill(0, token_ids, 0)
        for temperature, top_k, banned in itertools.product((0.0, 1.0), (0, 1), (0, 1)):
            sampling = Sampling(temperature=temperature, top_k=top_k, top_p=1.0, min_p=0.0, seed=0)
            for slot in range(slots):
                self._rows.place(slot, sampling, filled=1, position=0)
            for rows in (1, slots):
                self._decoder.decode(self._rows.token_ids[:rows], self._rows.filled[:rows])
                self._sampler.sample(self._rows, rows, [(0, (0,))] * banned)


def _output(sequence: Sequence, token_id: int) -> Output:
    if token_id == INVALID:
        return Output(lease=sequence.task.lease, last=True, failure=NAN, cost=sequence.cost)
    delta = sequence.accept(token_id)
    result = messages.respond(sequence, delta)
    return Output(lease=sequence.task.lease, result=result, last=delta.finish is not None, cost=sequence.cost)


def _end(sequence: Sequence, *, is_logged: bool) -> Output:
    """The end of a completion that the log holds all tokens of, and its last message or not."""
    delta = sequence.last
    result = None if is_logged or delta is None else messages.respond(sequence, delta)
    return Output(lease=sequence.task.lease, result=result, last=True, cost=sequence.cost)
