"""Generations at the worker: whatever the frontend lets through is run to its end, beside a request whose text is
known."""

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from millrace.engine import Engine, Output
from millrace.errors import Code, MillraceError
from millrace.queue import ModelEntry
from millrace.tensors import pack_bytes, unpack_bytes
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse, Sampling, Stopping
from services.frontend.parse import parse_generate
from services.worker import repository
from tests.fuzz import samples
from tests.fuzz.mutate import mutate_message
from tests.fuzz.requests import SHAPES
from tests.fuzz.samples import BOUNDS, text_entry
from tests.fuzz.shapes import examples
from tests.fuzz.target import Target, must
from tests.models import write_model
from tests.stub_models import write_stub
from tests.worker.steps import leased

MOST_TOKENS = 6
"""Of one completion: more is asked for, but not waited for."""
MOST_STEPS = 400
MODELS = Path(__file__).parents[2] / "models"
GOOD = GenerateRequest(
    model="tested",
    text="the stop, the end",
    sampling=Sampling(temperature=0, seed=1),
    stopping=Stopping(max_tokens=4, ignore_eos=True),
).SerializeToString()
PARSED_CODES = (Code.INVALID_ARGUMENT,)
CHAT_TEMPLATE = "{% for said in messages %}{{ eos_token }}{{ said.role }}: {{ said.content }}\n{% endfor %}"


class Completions(Target):
    """An input is some requests, which run together. Those that are accepted have their `max_tokens` cut."""

    codes: ClassVar[Sequence[Code]] = PARSED_CODES
    """With which a request that the frontend takes may still fail."""

    def open(self, stack: ExitStack) -> None:
        model = self.model(Path(stack.enter_context(TemporaryDirectory())))
        self.engine: Engine = repository.load(model, "cpu", threads=1)
        self.entry: ModelEntry = text_entry(model.file.context_length or 0)
        self.room = self.engine.capacity().jobs
        self.good = {lease: _text(_run(self.engine, {lease: GOOD})[lease]) for lease in ("before", "behind")}

    def model(self, folder: Path) -> repository.Model:
        raise NotImplementedError

    @cached_property
    def valid(self) -> Sequence[bytes]:
        return list(samples.generations())

    @cached_property
    def shapes(self) -> Sequence[bytes]:
        return examples(GenerateRequest, SHAPES, self.seed)

    @cached_property
    def known(self) -> Sequence[bytes]:
        return [pack_bytes([raw]) for raw in self.valid]

    def mutant(self, dice: random.Random) -> bytes:
        count = dice.choice((1, 2, 3, 4))
        known, shapes = self.valid, self.shapes
        return pack_bytes([mutate_message(dice, known if dice.random() < 0.9 else shapes) for _ in range(count)])

    def run(self, data: bytes) -> bool:
        """Whether the frontend takes any of the requests."""
        works = {"before": GOOD}
        for number, raw in enumerate(unpack_bytes(data)):
            if (payload := self._accepted(raw)) is not None:
                works[f"{number}"] = payload
        works["behind"] = GOOD
        ended = _run(self.engine, works)
        for lease, outputs in ended.items():
            self._check(lease, works[lease], outputs)
        must(self.engine.capacity().jobs == self.room, "the engine still holds something")
        return len(works) > 2

    def _accepted(self, raw: bytes) -> bytes | None:
        try:
            payload = parse_generate(raw, BOUNDS).against(self.entry).payload
        except MillraceError:
            return None
        request = GenerateRequest.FromString(payload)
        request.stopping.max_tokens = min(request.stopping.max_tokens or MOST_TOKENS, MOST_TOKENS)
        request.stopping.min_tokens = min(request.stopping.min_tokens, request.stopping.max_tokens)
        return request.SerializeToString()

    def _check(self, lease: str, raw: bytes, outputs: Sequence[Output]) -> None:
        if (good := self.good.get(lease)) is not None:
            must(_text(outputs) == good, f"a good request gives {_text(outputs)!r} instead of {good!r}")
        failure = outputs[-1].failure
        must(failure is None or failure.code in self.codes, f"ended with {failure}")
        asked = GenerateRequest.FromString(raw)
        tokens = sum(len(delta.token_ids) for response in _responses(outputs) for delta in response.deltas)
        most = asked.stopping.max_tokens * max(asked.sampling.num_completions, 1)
        must(tokens <= most, f"{tokens} tokens")
        if failure is None:
            usage = _responses(outputs)[-1].usage
            must(usage.completion_tokens == tokens and usage.seed == asked.sampling.seed, "usage")


class Tiny(Completions):
    """A decoder of random weights with a byte-level tokenizer."""

    name, share = "generation", 1_500

    def model(self, folder: Path) -> repository.Model:
        write_model(folder, name="tested", chat_template=CHAT_TEMPLATE)
        return _only(folder)


class Served(Completions):
    """The decoder that the repository brings."""

    name, share = "pycode", 150

    def model(self, folder: Path) -> repository.Model:
        return next(model for model in repository.scan(MODELS)[0] if model.name == "pycode")


class Stub(Completions):
    name, share = "stub", 1_500

    def model(self, folder: Path) -> repository.Model:
        write_stub(folder, name="tested", step_ms=0)
        return _only(folder)


def _only(folder: Path) -> repository.Model:
    (model,), broken = repository.scan(folder)
    assert not broken
    return model


def _run(engine: Engine, works: Mapping[str, bytes]) -> dict[str, list[Output]]:
    """Adds all, and steps until nothing is left. Each must end once."""
    for lease, raw in works.items():
        engine.add(leased(lease, raw))
    outputs: dict[str, list[Output]] = {lease: [] for lease in works}
    for _ in range(MOST_STEPS):
        added = engine.step()
        if added is None:
            break
        for output in added:
            must(not any(earlier.last for earlier in outputs[output.lease]), "an output behind the last one")
            outputs[output.lease].append(output)
    for lease, added in outputs.items():
        must(added and added[-1].last, f"{lease} has no end")
    return outputs


def _responses(outputs: Sequence[Output]) -> list[GenerateResponse]:
    results: list[Any] = [output.result() if callable(output.result) else output.result for output in outputs]
    return [result for result in results if result is not None]


def _text(outputs: Sequence[Output]) -> str:
    return "".join(delta.text for response in _responses(outputs) for delta in response.deltas)
