"""How fast a model decodes and prefills, and what of a step is not the model."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from millrace.engine import EngineContext, Output, Work
from millrace.v1.generation_pb2 import GenerateRequest, Sampling, Stopping, TokenIds
from services.worker.generation import GenerationEngine, task
from services.worker.generation.decoder import Chunk, Decoder
from services.worker.generation.rows import Rows
from services.worker.generation.sampling.sampler import Sampler

GREEDY = task.Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=0)
WARM, STEPS, PREFILLS = 4, 32, 5
NO_TOKENS, NO_LENGTHS = np.zeros((0, 1), np.int64), np.zeros(0, np.int32)


def decode_seconds(decoder: Decoder, sampler: Sampler, *, rows: int, length: int, steps: int = STEPS) -> float:
    """The median step of so many rows that hold `length` positions each: the model's run and the draw of its tokens.
    What the positions hold does not matter."""
    state, taken = Rows(rows), list[float]()
    for row in range(rows):
        decoder.open(row, NO_TOKENS[:, 0])
        if not decoder.reserve(row, length + WARM + steps):
            raise MemoryError(f"no memory for {length + WARM + steps} positions of row {row}")
        state.place(row, GREEDY, filled=length, position=0)
    for _ in range(WARM + steps):
        began = time.perf_counter()
        decoder.run(state.token_ids, state.filled, ())
        state.token_ids[:, 0] = np.maximum(sampler.sample(state, rows), 0)
        taken.append(time.perf_counter() - began)
        state.filled += 1
    for row in range(rows):
        decoder.close(row)
    return statistics.median(taken[WARM:])


def prefill_seconds(decoder: Decoder, sampler: Sampler, *, tokens: int, repeats: int = PREFILLS) -> float:
    """The median prefill of so many tokens in one run, up to the first token behind them."""
    state, taken = Rows(1), list[float]()
    token_ids = np.random.default_rng(0).integers(1, 256, tokens)
    for _ in range(1 + repeats):
        decoder.open(0, NO_TOKENS[:, 0])
        if not decoder.reserve(0, tokens):
            raise MemoryError(f"no memory for {tokens} positions")
        began = time.perf_counter()
        decoder.run(NO_TOKENS, NO_LENGTHS, [Chunk(0, token_ids, 0, wanted=True)])
        sampler.sample(state, 1)
        taken.append(time.perf_counter() - began)
        decoder.close(0)
    return statistics.median(taken[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Median times of an engine's steps in which all of its rows decode."""

    step_s: float
    model_s: float
    """Of which the model's run."""

    @property
    def share(self) -> float:
        return 1 - self.model_s / self.step_s


def engine_overhead(context: EngineContext, *, rows: int, length: int, filling: int, steps: int = STEPS) -> Overhead:
    """Of a whole engine, from requests to results, with so many prompts of `length` tokens at once, all of which decode
    after `filling` steps at most."""
    engine = GenerationEngine(context)
    session = _TimedSession(engine)
    for row in range(rows):
        request = _request(row, length, max_tokens=filling + WARM + steps)
        engine.add(Work(lease=str(row), job=str(row), request=request))
    while len(_step(engine)) < rows:
        pass
    taken, models = list[float](), list[float]()
    for _ in range(WARM + steps):
        session.spent_s, began = 0.0, time.perf_counter()
        _step(engine)
        taken.append(time.perf_counter() - began)
        models.append(session.spent_s)
    return Overhead(step_s=statistics.median(taken[WARM:]), model_s=statistics.median(models[WARM:]))


def _step(engine: GenerationEngine) -> list[Output]:
    """Raises ValueError where a text ends, of which none is meant to."""
    outputs = engine.step() or []
    if ended := [output for output in outputs if output.last]:
        raise ValueError(f"a text ended too early: {ended[0].failure or 'it has all its tokens'}")
    return outputs


class _TimedSession:
    """Takes the place of the session of an engine's decoder, and notes how long its runs take."""

    def __init__(self, engine: GenerationEngine) -> None:
        self.spent_s = 0.0
        self._session = engine._decoder._session  # type: ignore[attr-defined]
        engine._decoder._session = self  # type: ignore[attr-defined]

    def run_with_iobinding(self, *arguments: Any) -> None:
        began = time.perf_counter()
        self._session.run_with_iobinding(*arguments)
        self.spent_s += time.perf_counter() - began

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def _request(seed: int, length: int, *, max_tokens: int) -> bytes:
    """Greedy, and to the last token, whatever the tokens mean."""
    built = GenerateRequest(
        model="measured",
        sampling=Sampling(temperature=0.0),
        stopping=Stopping(max_tokens=max_tokens, ignore_eos=True),
        tokens=TokenIds(ids=np.random.default_rng(seed).integers(1, 256, length).tolist()),
    )
    return built.SerializeToString()
