"""Requests for the tiny model, and engines driven to the end of their jobs."""

import functools
import random
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from millrace.engine import Failure, Work
from millrace.v1.generation_pb2 import (
    CompletionDelta,
    GenerateRequest,
    GenerateResponse,
    OutputFormat,
    Reporting,
    Sampling,
    Stopping,
    TokenIds,
)
from services.worker import repository
from services.worker.generation import GenerationEngine
from services.worker.repository import Model
from tests.models import TinyLlama, write_model
from tests.worker.steps import leased, step

TINY = TinyLlama()
PARTS: dict[str, type[Any]] = {
    "sampling": Sampling,
    "reporting": Reporting,
    "output_format": OutputFormat,
    "stopping": Stopping,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of a job."""

    results: tuple[GenerateResponse, ...] = ()
    failure: Failure | None = None
    cost: float = 0.0

    @property
    def token_ids(self) -> list[int]:
        return self.tokens_of(0)

    @property
    def text(self) -> str:
        return self.text_of(0)

    @property
    def finish_reason(self) -> int:
        return self.deltas_of(0)[-1].finish_reason

    def tokens_of(self, index: int) -> list[int]:
        """Of one completion, as `text_of` and `deltas_of`."""
        return [token_id for delta in self.deltas_of(index) for token_id in delta.token_ids]

    def text_of(self, index: int) -> str:
        return "".join(delta.text for delta in self.deltas_of(index))

    def deltas_of(self, index: int) -> list[CompletionDelta]:
        return [delta for result in self.results for delta in result.deltas if delta.index == index]

    @property
    def log(self) -> list[bytes]:
        return [result.SerializeToString() for result in self.results]


@functools.cache
def tiny_model(shape: TinyLlama = TINY, **extra: Any) -> Model:
    """A model of that shape in a repository of its own; it keeps no prompts. `extra`: further keys of model.yaml."""
    extra = {"prefix_cache_bytes": 0} | extra
    models, broken = repository.scan(write_model(Path(tempfile.mkdtemp()), shape=shape, **extra).parents[1])
    assert not broken
    return models[0]


@functools.cache
def shared_engine(shape: TinyLlama = TINY, **extra: Any) -> GenerationEngine:
    """An engine that tests share: each leaves it empty."""
    return fresh_engine(shape, **extra)


def fresh_engine(shape: TinyLlama = TINY, **extra: Any) -> GenerationEngine:
    engine = repository.load(tiny_model(shape, **extra), shape.device, threads=1)
    assert isinstance(engine, GenerationEngine)
    return engine


def prompt(length: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(1, 300, length)]


def request(prompt: str | Sequence[int] = "the stop, the end", **fields: Any) -> bytes:
    """A serialised GenerateRequest: greedy, whatever the tokens mean, 8 of them, unless `fields` say otherwise."""
    fields = {"temperature": 0.0, "max_tokens": 8, "ignore_eos": True} | fields
    given = {name: value for name, value in fields.items() if value is not None}
    parts: dict[str, Any] = {
        field: part(**{name: given[name] for name in given if name in part.DESCRIPTOR.fields_by_name})
        for field, part in PARTS.items()
    }
    built = GenerateRequest(model="tiny", **parts)
    if isinstance(prompt, str):
        built.text = prompt
    else:
        built.tokens.CopyFrom(TokenIds(ids=prompt))
    return built.SerializeToString()


def random_work(job: str, dice: random.Random) -> Work:
    """A job of any kind."""
    fields: dict[str, object] = {"max_tokens": dice.randint(1, 24), "ignore_eos": dice.random() < 0.5}
    if dice.random() < 0.6:
        fields |= {"temperature": 0.9, "top_p": dice.choice([1.0, 0.8]), "seed": dice.getrandbits(64)}
    if dice.random() < 0.3:
        fields |= {"top_k": 10, "min_p": 0.05, "min_tokens": dice.randint(0, 8)}
    return leased(job, request(prompt(dice.randint(1, 60), dice.randint(0, 99)), **fields))


def run(engine: GenerationEngine, works: Iterable[Work]) -> dict[str, Ran]:
    """Adds all at once and steps until all have ended."""
    works = list(works)
    for work in works:
        engine.add(work)
    ran: dict[str, Ran] = {}
    results: dict[str, list[GenerateResponse]] = {work.job: [] for work in works}
    while len(ran) < len(works):
        for output in step(engine):
            if isinstance(output.result, GenerateResponse):
                results[output.lease].append(output.result)
            if output.last:
                ran[output.lease] = Ran(results=tuple(results[output.lease]), failure=output.failure, cost=output.cost)
    assert engine.capacity().jobs == engine.config.slots
    return ran


def run_one(engine: GenerationEngine, body: bytes, results: Sequence[bytes] = ()) -> Ran:
    return run(engine, [leased("only", body, results=results)])["only"]
