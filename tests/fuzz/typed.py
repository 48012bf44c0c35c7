"""Typed requests from the frontend's parser to a small model's answer: texts, images and sounds.

What the frontend takes is run by the real engine, beside requests whose answers are known.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import ClassVar

from millrace.engine import Failure, Output, Work
from millrace.errors import Code, InvalidRequest, MillraceError, Violation
from millrace.tensors import pack_bytes, unpack_bytes
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.tasks_pb2 import ClassifyRequest, EmbedRequest, TranscribeRequest
from services.frontend.parse import ValidRequest
from services.frontend.typed import TYPED, parse_typed
from services.worker.batch import BatchEngine
from tests.fuzz import answers, contracts
from tests.fuzz.models import MODELS, Small
from tests.fuzz.mutate import mutate_message
from tests.fuzz.requests import REFUSALS
from tests.fuzz.samples import BOUNDS
from tests.fuzz.shapes import examples
from tests.fuzz.target import Target, must

MOST_STEPS = 400
MOST_MESSAGE = 1_000
"""Characters of what a worker says of a request."""
MODEL_FAILED = "MODEL_FAILED"
TEXTS = ("the cat", "", "数据 🙂", "\0", "the " * 60, "ü" * 3_000, "\u202e\ufeff\u0301" * 20, "x" * 100_000)
SHAPES = 100


class Typed(Target):
    """An input is the name of a model and some requests of its task, which run together."""

    name, share = "typed", 2_500
    served: ClassVar[Sequence[str]] = tuple(MODELS)

    def open(self, stack: ExitStack) -> None:
        self.engines = {name: MODELS[name].engine() for name in self.served}
        self.known_answers = {
            name: run(self.engines[name], {"good": _work("good", model, model.good)})["good"]
            for name, model in self._models()
        }

    def _models(self) -> Iterator[tuple[str, Small]]:
        return ((name, MODELS[name]) for name in self.served)

    @cached_property
    def valid(self) -> Mapping[str, Sequence[bytes]]:
        return {name: (model.good, *_asked(model)) for name, model in self._models()}

    @cached_property
    def shapes(self) -> Mapping[str, Sequence[bytes]]:
        """By task."""
        return {task: examples(kind.message, SHAPES, self.seed) for task, kind in TYPED.items()}

    @cached_property
    def known(self) -> Sequence[bytes]:
        every = [pack_bytes([name.encode(), raw]) for name, requests in self.valid.items() for raw in requests]
        return [*every, pack_bytes([b"embedding", *self.valid["embedding"]])]

    def mutant(self, dice: random.Random) -> bytes:
        name = dice.choice(self.served)
        known, shapes = self.valid[name], self.shapes[MODELS[name].task]
        count = dice.choice((1, 1, 2, 3))
        requests = [mutate_message(dice, known if dice.random() < 0.9 else shapes) for _ in range(count)]
        return pack_bytes([name.encode(), *requests])

    def run(self, data: bytes) -> bool:
        """Whether the frontend takes any of the requests, and the worker answers it."""
        head, *requests = unpack_bytes(data)
        return self.ask(head.decode(), requests)

    def ask(self, name: str, requests: Sequence[bytes]) -> bool:
        """Whether any of them is answered."""
        model, engine = MODELS[name], self.engines[name]
        asked = {f"{number}": valid for number, raw in enumerate(requests) if (valid := self._accepted(model, raw))}
        payloads = {"before": model.good, **{lease: valid.payload for lease, valid in asked.items()}}
        payloads["behind"] = model.good
        ended = run(engine, {lease: _work(lease, model, payload) for lease, payload in payloads.items()})
        for lease, outputs in ended.items():
            if lease in asked:
                _check(model, payloads[lease], outputs)
            else:
                answers.check_same(outputs, self.known_answers[name])
        must(engine.capacity().jobs >= engine.config.max_rows, "the engine still holds something")
        return any(ended[lease][-1].failure is None for lease in asked)

    def _accepted(self, model: Small, raw: bytes) -> ValidRequest | None:
        try:
            valid = parse_typed(model.task, raw, BOUNDS).against(model.entry)
        except MillraceError as error:
            contracts.check_refusal(error, *REFUSALS)
            return None
        contracts.check_request(valid, model.entry)
        must(valid.task == model.task, valid.task)
        contracts.check_typed(valid, TYPED[model.task].message.FromString(raw))
        return valid


def _asked(model: Small) -> Iterator[bytes]:
    """Valid requests, and others."""
    job = JobOptions(job_id="job-1")
    if model.task == "embed":
        for text in TEXTS:
            yield EmbedRequest(model="tested", texts=[text, "the dog"], truncate=True, job=job).SerializeToString()
            yield EmbedRequest(model="tested", texts=[text]).SerializeToString()
        yield EmbedRequest(model="tested", texts=["a"] * 1_024).SerializeToString()
        yield EmbedRequest(model="tested", texts=["a"] * 1_025).SerializeToString()
        yield EmbedRequest(model="tested").SerializeToString()
    elif model.task == "classify":
        for text in TEXTS:
            yield ClassifyRequest(model="tested", text=text, top_k=1).SerializeToString()
        for top_k in (1, 2, 7, 2**32 - 1):
            good = ClassifyRequest.FromString(model.good)
            good.top_k = top_k
            yield good.SerializeToString()
        yield ClassifyRequest(model="tested", audio=b"", job=job).SerializeToString()
    else:
        audio = TranscribeRequest.FromString(model.good).audio
        for language in ("en", "en-GB", "de", "x" * 9, "\n"):
            yield TranscribeRequest(model="tested", audio=audio, language=language).SerializeToString()


def _work(lease: str, model: Small, payload: bytes) -> Work:
    return Work(lease=lease, job=lease, task=model.task, request=payload)


def run(engine: BatchEngine, works: Mapping[str, Work]) -> dict[str, list[Output]]:
    """Adds all, and steps until nothing is left. Each must end once, and say nothing behind its end."""
    for work in works.values():
        engine.add(work)
    outputs: dict[str, list[Output]] = {lease: [] for lease in works}
    for _ in range(MOST_STEPS):
        added = engine.step()
        if added is None:
            break
        for output in added:
            must(not any(earlier.last for earlier in outputs[output.lease]), "an output behind the last one")
            outputs[output.lease].append(output)
    for lease, found in outputs.items():
        must(found and found[-1].last, f"{lease} has no end")
    return outputs


def _check(model: Small, payload: bytes, outputs: Sequence[Output]) -> None:
    failure = outputs[-1].failure
    if failure is not None:
        check_failure(failure, model.may_fail)
    answers.check(model.task, payload, outputs)


def check_failure(failure: Failure, may_fail: bool) -> None:
    """It can be told to the caller, and names what is to blame."""
    if failure.reason == MODEL_FAILED and may_fail:
        return
    must(failure.code == Code.INVALID_ARGUMENT, f"ended with {failure}")
    must(failure.message.strip() and len(failure.message) <= MOST_MESSAGE, f"a message of {len(failure.message)}")
    failure.message.encode()
    error = InvalidRequest([Violation(failure.field, failure.message)], reason=failure.reason)
    contracts.check_refusal(error, Code.INVALID_ARGUMENT)
