"""What a continued job waits for its first new token, by how many tokens its log holds."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from millrace.engine import EngineContext, Work
from millrace.v1.generation_pb2 import CompletionDelta, GenerateRequest, GenerateResponse, Sampling, Stopping, TokenIds
from services.worker.generation import GenerationEngine
from services.worker.repository import Model

PROMPT_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """How long `jobs` that came at once waited, one in the middle and the last, with so many tokens in their logs."""

    jobs: int
    logged: int
    middle_s: float
    last_s: float


def waits(model: Model, continuation: str, jobs: Sequence[int], logged: Sequence[int]) -> Iterator[Wait]:
    """In process, one thread, nothing else to do."""
    changed = {"continuation": continuation, "step_tokens": model.file.prefill_chunk_tokens}
    config = model.file.model_copy(update=changed).model_dump()
    engine = GenerationEngine(EngineContext(folder=model.folder, config=config, device="cpu", threads=1))
    for count in jobs:
        for tokens in logged:
            seconds = _first_tokens(engine, [_continued(engine, f"{job}", tokens, job) for job in range(count)])
            yield Wait(jobs=count, logged=tokens, middle_s=median(seconds), last_s=max(seconds))


def _first_tokens(engine: GenerationEngine, works: Sequence[Work]) -> list[float]:
    """Seconds until each has a first token; the earlier ones go on meanwhile."""
    began, seconds = time.perf_counter(), dict[str, float]()
    for work in works:
        engine.add(work)
    while len(seconds) < len(works):
        for output in engine.step() or ():
            seconds.setdefault(output.lease, time.perf_counter() - began)
    for work in works:
        engine.abort(work.lease)
    engine.step()
    return list(seconds.values())


def _continued(engine: GenerationEngine, lease: str, logged: int, seed: int) -> Work:
    """A job with any prompt, and any tokens in its log."""
    vocabulary = engine.config.decoder.vocabulary_size
    ids = np.random.default_rng(seed).integers(1, vocabulary, PROMPT_TOKENS + logged).tolist()
    request = GenerateRequest(
        tokens=TokenIds(ids=ids[:PROMPT_TOKENS]),
        sampling=Sampling(temperature=0.8, top_p=0.95, seed=seed),
        stopping=Stopping(ignore_eos=True, max_tokens=engine.config.context_length),
    )
    log = GenerateResponse(deltas=[CompletionDelta(token_ids=ids[PROMPT_TOKENS:])])
    return Work(
        lease=lease, job=lease, request=request.SerializeToString(), results=[log.SerializeToString()] * bool(logged)
    )
