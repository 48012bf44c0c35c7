"""What one step runs: the rows that decode, and the chunks of prompts within the step's budget."""

from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

from services.worker.generation.config import ModelConfig
from services.worker.generation.decoder import Chunk, Decoder
from services.worker.generation.job import Job
from services.worker.generation.sequence import Sequence
from services.worker.generation.slots import SlotTable


@dataclass(frozen=True, slots=True)
class Plan:
    """Decode the first `decoding` rows, run the chunks, then sample the first `rows` rows, which besides the decoding
    ones are those whose last chunk is among them."""

    decoding: int
    chunks: Ordered[Chunk]
    rows: int
    scored: Chunk | None = None
    """A chunk of a prompt whose tokens' log-probabilities are wanted; it runs last, and is nobody's last one."""


def plan_step(table: SlotTable[Sequence], jobs: Mapping[str, Job], decoder: Decoder, config: ModelConfig) -> Plan:
    """Opens the rows of those whose turn it is to prefill, and reserves what they need."""
    decoding = rows = table.decoding
    chunks: list[Chunk] = []
    budget = config.step_tokens
    for row, sequence in enumerate(table.occupants[decoding : config.slots], decoding):
        job = jobs[sequence.task.lease]
        if not sequence.opened:
            if any(one.opened for one in job.running):
                break  # Another completion prefills the prompt for it.
            _open(row, sequence, job, decoder)
        if job.scores_prompt:
            scored = _scored(row, sequence, config)
            if scored is not None and budget >= len(scored.token_ids) and decoder.reserve(row, scored.end):
                return Plan(decoding, chunks, rows, scored)
            if scored is not None:
                break
        for chunk in _chunks(row, sequence, config.prefill_chunk_tokens):
            budget -= len(chunk.token_ids)
            if budget < 0 or not decoder.reserve(row, chunk.end):
                return Plan(decoding, chunks, rows)
            chunks.append(chunk)
        rows += 1
    return Plan(decoding, chunks, rows)


def _open(row: int, sequence: Sequence, job: Job, decoder: Decoder) -> None:
    """A prompt whose tokens are scored has to be run, whatever the cache holds of it."""
    sequence.opened = True
    sequence.prefilled = decoder.open(row, sequence.token_ids[:0] if job.scores_prompt else sequence.token_ids)
    job.cached_tokens = max(job.cached_tokens, min(sequence.prefilled, len(job.task.prompt_ids)))


def _scored(row: int, sequence: Sequence, config: ModelConfig) -> Chunk | None:
    """The next piece of a prompt of which each token is scored; None where only the last token is left."""
    start, length = sequence.prefilled, len(sequence.task.prompt_ids) - 1
    end = min(start + config.scored_chunk_tokens, length)
    return Chunk(row, sequence.token_ids[start:end], start, wanted=False) if start < end else None


def _chunks(row: int, sequence: Sequence, size: int) -> list[Chunk]:
    """What is left to prefill, cut at multiples of the chunk's size."""
    token_ids, length, start = sequence.token_ids, len(sequence.token_ids), sequence.prefilled
    chunks: list[Chunk] = []
    while start < length:
        end = min(start - start % size + size, length)
        chunks.append(Chunk(row, token_ids[start:end], start, wanted=end == length))
        start = end
    return chunks
