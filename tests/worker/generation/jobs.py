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
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse, Sampling, Stopping, TokenIds
from services.worker import repository
from services.worker.generation import GenerationEngine
from services.worker.repository import Model
from tests.models import TinyLlama, write_model
from tests.worker.steps import leased, step

TINY = TinyLlama()
SAMPLING = frozenset(field.name for field in Sampling.DESCRIPTOR.fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of a job."""

    results: tuple[GenerateResponse, ...] = ()
    failure: Failure | None = None
    cost: float = 0.0

    @property
    def token_ids(self) -> list[int]:
        return [token_id for result in self.results for token_id in result.deltas[0].token_ids]

    @property
    def text(self) -> str:
        return "".join(result.deltas[0].text for result in self.results)

    @property
    def finish_reason(self) -> int:
        return self.results[-1].deltas[0].finish_reason

    @property
    def log(self) -> list[bytes]:
        return [result.SerializeToString() for result in self.results]


@functools.cache
def tiny_model(shape: TinyLlama = TINY, **extra: Any) -> Model:
    """A model of that shape in a repository of its own. `extra`: further keys of its model.yaml."""
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
    sampling = Sampling(**{name: fields.pop(name) for name in SAMPLING & fields.keys() if fields[name] is not None})
    stopping = Stopping(**{name: value for name, value in fields.items() if value is not None})
    built = GenerateRequest(model="tiny", sampling=sampling, stopping=stopping)
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
