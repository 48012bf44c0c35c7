"""What a step of the engine costs besides the model's run: an engine in this process, all rows decoding.

python -m bench.generation.overhead SPEC.json RESULT.json
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnxruntime as ort

from millrace.engine import Engine, Output, Work
from services.worker import repository
from services.worker.generation.sampling.sampler import Sampler

LOGITS = "logits"
"""The first that a model gives; whatever samples takes it."""
SAMPLE = Sampler.sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A model repository with one generation model, and the requests that run at once. Each asks for more tokens than
    there are steps, so that none ends before the last one that counts."""

    models: str
    requests: list[str]
    """Serialised GenerateRequests, in hexadecimal."""
    steps: int
    threads: int


@dataclass(slots=True, kw_only=True)
class Measured:
    """Milliseconds of each step, and what of it went where."""

    step_ms: list[float] = field(default_factory=list)
    model_ms: list[float] = field(default_factory=list)
    sampler_ms: list[float] = field(default_factory=list)
    results_ms: list[float] = field(default_factory=list)
    """Behind each step: making its results, which a thread beside the engine's does."""

    @property
    def share(self) -> float:
        """Of the steps, all but the model."""
        return 1 - sum(self.model_ms) / sum(self.step_ms)

    @property
    def sampler_share(self) -> float:
        return sum(self.sampler_ms) / sum(self.step_ms)


class Watch:
    """Seconds in the model and in the sampler."""

    def __init__(self) -> None:
        self.model_s = self.sampler_s = 0.0

    def session(self) -> type[ort.InferenceSession]:
        """Sessions that note the time of their runs, where they give logits."""
        watch = self

        class Timed(ort.InferenceSession):  # type: ignore[misc]
            def run_with_iobinding(self, *args: Any, **options: Any) -> None:
                began = time.perf_counter()
                super().run_with_iobinding(*args, **options)
                if self.get_outputs()[0].name == LOGITS:
                    watch.model_s += time.perf_counter() - began

        return Timed

    def sample(self, sampler: Sampler, *args: Any) -> Any:
        """In the place of `Sampler.sample`."""
        began = time.perf_counter()
        found = SAMPLE(sampler, *args)
        self.sampler_s += time.perf_counter() - began
        return found


def measure(spec: Steps) -> Measured:
    """Raises ValueError where the model cannot be had, or a request fails."""
    (model,), broken = repository.scan(Path(spec.models))
    if broken:
        raise ValueError(broken[0].reason)
    watch = Watch()
    with patch.object(ort, "InferenceSession", watch.session()):
        engine = repository.load(model, "cpu", spec.threads)
    for index, request in enumerate(spec.requests):
        engine.add(Work(lease=str(index), job=str(index), request=bytes.fromhex(request)))
    waiting, measured = {str(index) for index in range(len(spec.requests))}, Measured()
    while waiting:
        waiting -= {output.lease for output in _check(engine.step())}
    with patch.object(Sampler, "sample", lambda *args: watch.sample(*args)):
        for _ in range(spec.steps):
            _step(engine, watch, measured)
    return measured


def _step(engine: Engine, watch: Watch, measured: Measured) -> None:
    watch.model_s = watch.sampler_s = 0.0
    began = time.perf_counter()
    outputs = engine.step()
    stepped = time.perf_counter()
    for output in _check(outputs):
        if callable(output.result):
            output.result()
    measured.results_ms.append(1000 * (time.perf_counter() - stepped))
    measured.step_ms.append(1000 * (stepped - began))
    measured.model_ms.append(1000 * watch.model_s)
    measured.sampler_ms.append(1000 * watch.sampler_s)


def _check(outputs: Any) -> Iterator[Output]:
    for output in outputs or ():
        if output.last:
            raise ValueError(f"a text ended too early: {output.failure}")
        yield output


def main() -> None:
    spec, result = sys.argv[1:]
    measured = measure(Steps(**json.loads(Path(spec).read_text())))
    Path(result).write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
