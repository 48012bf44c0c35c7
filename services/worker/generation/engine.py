"""Continuous batching: sequences join and leave at every step.

A step is plan → run → sample → advance. It decodes one token for each decoding sequence and prefills prompts in
chunks, oldest first, within a budget of prompt tokens (one chunk, unless the model's file says more), so that a long
prompt never makes the others wait. The borders of chunks are fixed multiples, whatever the load. The last chunk of a
prompt yields the first token, in the same step.

The completions of a job share its prompt: one of them prefills it, and the others begin with a copy of its cache.

What another worker has written of a completion is prefilled behind the prompt, or replayed: a replaying sequence is a
decoding one whose next tokens are known. Its cache is then what it was there, bit for bit where the CPU is of the same
kind, and so is whatever follows.

A sequence that decodes alone may run over several guessed tokens in one step (`lookup`).
"""

import time
from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from millrace.engine import CONTRACT, Capacity, EngineContext, Failure, Output, Signature, Work
from millrace.errors import Code
from services.worker.generation import config, decoders, messages
from services.worker.generation.admission import Admission
from services.worker.generation.decoder import Chunk
from services.worker.generation.job import Job
from services.worker.generation.lookup import Guesser
from services.worker.generation.plan import Plan, plan_step
from services.worker.generation.rows import Rows
from services.worker.generation.sampling.sampler import INVALID, Sampler
from services.worker.generation.sampling.scorer import Score, Scorer
from services.worker.generation.sequence import Broken, Sequence
from services.worker.generation.slots import SlotTable
from services.worker.generation.text.grammar import GrammarOverrun
from services.worker.generation.text.vocabulary import Vocabulary
from services.worker.generation.warm import warm_up

NAN = Failure(code=Code.INTERNAL, reason="NAN_LOGITS", message="the model's output was not a number")
TOTALS = (
    "steps",
    "prompt_tokens",
    "completion_tokens",
    "tokens_after_cancel",
    "preempted_sequences",
    "guessed_tokens",
    "right_guesses",
)


class GenerationEngine:
    """Implements `millrace.engine.Engine` for decoder graphs. Whatever touches the rows waits for the next step."""

    contract = CONTRACT
    lanes = 1
    signature = Signature()

    def __init__(self, context: EngineContext) -> None:
        """Raises ValueError where the model's files contradict each other, and ONNX Runtime's errors."""
        self.config = config.read(context)
        self._vocabulary = Vocabulary(self.config.decoder.tokenizer)
        self._admission = Admission(self.config, self._vocabulary)
        self._decoder = decoders.open_decoder(self.config, device=context.device, threads=context.threads)
        self._sampler = Sampler(self._decoder.logits, threads=context.threads)
        self._chunk_sampler = Sampler(self._decoder.chunk_logits, threads=context.threads)
        self._scorer = Scorer(self._decoder.logits, threads=context.threads)
        self._chunk_scorer = Scorer(self._decoder.chunk_logits, threads=context.threads)
        self._rows, self._guessed_rows = Rows(self.config.slots), Rows(self.config.longest_run)
        self._guesser = Guesser(self.config.speculative_tokens)
        self._table = SlotTable[Sequence]()
        self._jobs: dict[str, Job] = {}
        self._arrived = 0
        self._totals = Counter(dict.fromkeys(TOTALS, 0))
        self._stepping = False
        self._late: set[str] = set()
        """Leases that were cancelled while a step ran."""
        warm_up(self._decoder, self._sampler, self._rows)

    @property
    def memory_bytes(self) -> int:
        """What sequences have on the device, allocated once: the KV cache and the logits."""
        return self._decoder.memory_bytes

    def counters(self) -> Mapping[str, float]:
        return {**self._totals, **self._decoder.counters()}

    def gauges(self) -> Mapping[str, float]:
        """kv_blocks: of KV memory, or slots, where each row has one of its own; kv_blocks_used: those that sequences
        have; kv_cache_usage: their share, 0 to 1."""
        used, blocks = self._decoder.blocks or (min(len(self._table), self.config.slots), self.config.slots)
        return {"kv_blocks": blocks, "kv_blocks_used": used, "kv_cache_usage": used / blocks}

    def capacity(self) -> Capacity:
        """Where rows share their memory, what waits for some of it is taken to have its prompt's."""
        waiting = sum(len(sequence.token_ids) for sequence in list(self._table.occupants) if not sequence.opened)
        room = max(self._decoder.room - waiting, 0)
        return Capacity(jobs=max(self.config.slots - self._admission.places, 0), cost=room)

    def add(self, work: Work) -> None:
        self._admission.add(work)

    def abort(self, lease: str) -> None:
        if self._stepping:
            self._late.add(lease)
        self._admission.abort(lease)

    def step(self) -> list[Output] | None:
        ended = self._admission.take(self._join, self._forget)
        if not self._table:
            return ended or ([] if self._admission.wait() else None)
        self._stepping = True
        self._totals["steps"] += 1
        is_alone = len(self._table) == self._table.decoding == 1
        if is_alone and (guess := self._guesser.guess(self._table.occupants[0])):
            self._run_guess(guess)
        else:
            self._run_plan()
        self._stepping = False
        return ended + self._outputs()

    # ── jobs come and go ─────────────────────────────────────────────────────────────────────────────────────────

    def _join(self, job: Job) -> None:
        self._jobs[job.lease] = job
        self._totals["prompt_tokens"] += len(job.task.prompt_ids)
        if job.scores_prompt:
            job.score(0, [Score(job.task.prompt_ids[0], 0.0, ())])  # It follows nothing.
        for sequence in job.sequences:
            if sequence.last is None:
                self._arrived += 1
                sequence.arrival = self._arrived
                self._table.join(sequence)
            else:
                self._admission.freed(job.lease)

    def _forget(self, lease: str) -> None:
        if lease in self._jobs:
            job = self._jobs[lease]
            if lease in self._late and job.latest[0] == self._totals["steps"]:
                self._totals["tokens_after_cancel"] += job.latest[1]
            self._end(job)
        self._late.discard(lease)

    def _end(self, job: Job) -> None:
        del self._jobs[job.lease]
        for sequence in job.running:
            self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        self._admission.freed(sequence.task.lease)
        self._vacate(sequence)

    def _vacate(self, sequence: Sequence) -> None:
        """Takes a sequence out of the rows, and closes the gap."""
        if sequence.opened:
            self._decoder.close(self._table.row(sequence))
            sequence.opened = False
        for move in self._table.leave(sequence):
            moved = self._table.occupants[move.target]
            if moved.opened:
                self._decoder.move(move.source, move.target, moved.filled)
                self._rows.move(move.source, move.target)

    # ── a step ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _run_plan(self) -> None:
        began = time.monotonic()
        self._fork()
        self._make_room()
        plan = plan_step(self._table, self._jobs, self._decoder, self.config)
        self._run(plan)
        token_ids = self._sample(plan)
        self._advance(plan, token_ids)
        if plan.decoding == 1 and not plan.chunks:
            self._guesser.note(guessed=False, tokens=1, began=began)

    def _fork(self) -> None:
        """Sequences whose prompt stands in the row of another completion of their job begin with a copy of it. One that
        has nothing else to prefill decodes from here on, the prompt's last token first."""
        for row in range(self._table.decoding, min(len(self._table), self.config.slots)):
            sequence = self._table.occupants[row]
            job = self._jobs[sequence.task.lease]
            length = len(job.task.prompt_ids)
            source = next((one for one in job.running if one.opened and one.filled >= length), None)
            if sequence.opened or source is None:
                continue
            continued = len(sequence.token_ids) > length
            sequence.opened, sequence.prefilled = True, length if continued else length - 1
            self._decoder.fork(self._table.row(source), row, sequence.prefilled)
            if not continued and row == self._table.decoding:
                self._place(row, sequence, filled=length - 1)
                self._rows.token_ids[row] = job.task.prompt_ids[-1]
                sequence.prefilled = length
                self._table.promote(1)

    def _make_room(self) -> None:
        """Memory for one more position of each decoding row. Where there is none left, the youngest sequence gives its
        own up, and begins again behind the others."""
        row = 0
        while row < self._table.decoding:
            if self._decoder.reserve(row, self._table.occupants[row].filled + 1):
                row += 1
                continue
            youngest = max((one for one in self._table.occupants if one.opened), key=lambda one: one.arrival)
            self._vacate(youngest)
            youngest.rewind()
            self._table.join(youngest)
            self._totals["preempted_sequences"] += 1
            row = 0

    def _run(self, plan: Plan) -> None:
        rows, step = self._rows, self._totals["steps"]
        for sequence in self._table.occupants[: plan.decoding]:
            self._jobs[sequence.task.lease].count(step, 1)
        decoding = slice(plan.decoding)
        self._decoder.run(rows.token_ids[decoding], rows.filled[decoding], plan.chunks)
        rows.filled[decoding] += 1
        for chunk in plan.chunks:
            self._count_chunk(chunk)
        if plan.scored is not None:
            self._decoder.run_all(plan.scored)
            self._count_chunk(plan.scored)
            self._score_prompt(plan.scored)

    def _count_chunk(self, chunk: Chunk) -> None:
        sequence = self._table.occupants[chunk.row]
        sequence.prefilled = chunk.end
        self._jobs[sequence.task.lease].count(self._totals["steps"], len(chunk.token_ids))

    def _score_prompt(self, chunk: Chunk) -> None:
        """Log-probabilities of the tokens behind the first of a chunk, and of the one behind it."""
        job = self._jobs[self._table.occupants[chunk.row].task.lease]
        prompt, top = job.task.prompt_ids, job.task.prompt_logprobs or 0
        given = prompt[chunk.start + 1 : chunk.end + 1]
        job.score(chunk.start + 1, self._chunk_scorer.score(range(len(given)), given, [top] * len(given)))

    def _place(self, row: int, sequence: Sequence, *, filled: int) -> None:
        place, sampling = self._rows.place, sequence.task.sampling
        place(row, sampling, completion=sequence.index, filled=filled, position=sequence.position)

    def _sample(self, plan: Plan) -> npt.NDArray[np.int64]:
        """The next token of each row that has logits; of no meaning where it replays."""
        occupants = self._table.occupants
        for row in range(plan.decoding, plan.rows):
            self._place(row, occupants[row], filled=len(occupants[row].token_ids))
        self._table.promote(plan.rows - plan.decoding)
        if all(sequence.replay for sequence in occupants[: plan.rows]):
            return np.zeros(plan.rows, np.int64)
        edits = self._sampler.edits()
        for row, sequence in enumerate(occupants[: plan.rows]):
            try:
                if not sequence.replay:
                    sequence.edit(edits, row)
            except GrammarOverrun as overrun:
                self._jobs[sequence.task.lease].failure = _overrun(str(overrun))
        return self._sampler.sample(self._rows, plan.rows, edits)

    def _advance(self, plan: Plan, token_ids: npt.NDArray[np.int64]) -> None:
        """Each row's newest token: news of its job, unless the log knows it."""
        scores = self._score(plan, token_ids)
        for row, token_id in enumerate(token_ids.tolist()):
            sequence = self._table.occupants[row]
            if sequence.replay:
                token_ids[row] = sequence.replay.popleft()
            else:
                self._accept(sequence, [token_id], scores.get(row, ()))
        self._rows.token_ids[: plan.rows, 0] = token_ids
        self._rows.position[: plan.rows] += np.uint64(1)

    def _score(self, plan: Plan, token_ids: npt.NDArray[np.int64]) -> dict[int, tuple[Score, ...]]:
        """By row, where it was asked for: the log-probability of its new token."""
        asked = {
            row: sequence.task.logprobs
            for row, sequence in enumerate(self._table.occupants[: plan.rows])
            if sequence.task.logprobs is not None and not sequence.replay
        }
        if not asked:
            return {}
        rows = list(asked)
        scores = self._scorer.score(rows, np.maximum(token_ids[rows], 0).tolist(), list(asked.values()))
        return {row: (score,) for row, score in zip(rows, scores, strict=True)}

    def _accept(self, sequence: Sequence, token_ids: list[int], scores: tuple[Score, ...] = ()) -> int:
        """Gives a sequence its next tokens, until it ends; answers how many it took."""
        job = self._jobs[sequence.task.lease]
        for taken, token_id in enumerate(token_ids, 1):
            if token_id == INVALID:
                job.failure = NAN
            if job.failure is None:
                try:
                    job.tell(sequence.index, sequence.accept(token_id, scores))
                    self._totals["completion_tokens"] += 1
                except (Broken, GrammarOverrun) as overrun:
                    job.failure = _overrun(str(overrun))
            if job.failure is not None or sequence.last is not None:
                return taken
        return len(token_ids)

    def _outputs(self) -> list[Output]:
        """What the step has added, one output for each job; those that ended have left."""
        outputs: list[Output] = []
        for job in [job for job in self._jobs.values() if job.has_news]:
            failed = job.failure is not None
            result = None if failed else messages.respond(job, self._vocabulary)
            for sequence in reversed(job.sequences):
                if sequence.last is not None and sequence.opened:
                    self._leave(sequence)
            last = failed or not job.running
            if last:
                self._end(job)
            outputs.append(Output(lease=job.lease, result=result, last=last, failure=job.failure, cost=job.cost))
            job.fresh, job.fresh_scores = {}, []
        return outputs

    def _run_guess(self, guess: list[int]) -> None:
        """Runs the newest token and the guessed ones behind it, and takes what is drawn as far as it was guessed, and
        one more."""
        began, rows, sequence = time.monotonic(), self._rows, self._table.occupants[0]
        start, count = int(rows.filled[0]), len(guess) + 1
        if not self._decoder.reserve(0, start + count):
            self._run_plan()
            return
        token_ids = np.array([rows.token_ids[0, 0], *guess], np.int64)
        self._decoder.run_all(Chunk(0, token_ids, start, wanted=False))
        for place in range(count):
            at = {"filled": start + place, "position": sequence.position + place}
            self._guessed_rows.place(place, sequence.task.sampling, completion=sequence.index, **at)
        drawn = self._chunk_sampler.sample(self._guessed_rows, count).tolist()
        right = next((place for place, token in enumerate(guess) if token != drawn[place]), len(guess))
        self._jobs[sequence.task.lease].count(self._totals["steps"], count)
        taken = self._accept(sequence, drawn[: right + 1])
        rows.filled[0], rows.token_ids[0] = start + taken, drawn[taken - 1]
        rows.position[0] += np.uint64(taken)
        self._totals["guessed_tokens"] += len(guess)
        self._totals["right_guesses"] += taken - 1
        self._guesser.note(guessed=True, tokens=taken, began=began)


def _overrun(message: str) -> Failure:
    return Failure(code=Code.INVALID_ARGUMENT, reason="OUTPUT_FORMAT", message=message, field="output_format")
