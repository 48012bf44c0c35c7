"""What a model's folder says of itself, read by the real repository and engines: a folder that is not in order is named
with a reason, and nothing else happens."""

import json
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from google.protobuf.message import DecodeError

from millrace.engine import Engine
from services.worker import repository
from services.worker.batch import BatchEngine
from tests import graphs
from tests.fuzz.generation import GOOD
from tests.fuzz.served import lengths
from tests.fuzz.target import Target, fail, must
from tests.fuzz.tensors import answered, request
from tests.fuzz.texts import VALUES, billion, mutate_json, mutate_yaml
from tests.models import write_model
from tests.worker.steps import leased

MOST_REASON = 1_200
MOST_STEPS = 100


class Folder(Target):
    """An input is one file of a model's folder; the others are in order."""

    growth_bytes = 256 << 20
    file: ClassVar[str]

    def open(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(TemporaryDirectory()))
        self.version = self.write(self.folder)

    def write(self, folder: Path) -> Path:
        """A model that is in order; answers its version's folder."""
        raise NotImplementedError

    def probe(self, engine: Engine) -> None:
        """The engine of a model that was loaded does its work, or refuses it as a request."""
        raise NotImplementedError

    @cached_property
    def samples(self) -> Sequence[bytes]:
        with TemporaryDirectory() as folder:
            return [(self.write(Path(folder)) / self.file).read_bytes()]

    @cached_property
    def known(self) -> Sequence[bytes]:
        return (*self.samples, b"")

    def run(self, data: bytes) -> bool:
        """Whether the model is served."""
        (self.version / self.file).write_bytes(data)
        engine = loaded(self.folder)
        if engine is not None:
            self.probe(engine)
        return engine is not None


def loaded(folder: Path) -> Engine | None:
    """The engine of the one version that the repository holds, or None where it was named broken for a reason."""
    models, broken = repository.scan(folder)
    must(len(models) + len(broken) == 1, f"one folder gives {len(models)} models and {len(broken)} broken ones")
    if broken:
        check_reason(broken[0].reason)
        return None
    try:
        return repository.load(models[0], "cpu", threads=1)
    except ValueError as error:
        cause = error.__cause__ or error
        must(_is_meant(cause), f"loading fails with {type(cause).__name__}: {cause!s:.300}")
        check_reason(str(error))
        return None


def check_reason(reason: str) -> None:
    must(reason.strip(), "a folder is broken for no reason")
    must(len(reason) <= MOST_REASON, f"a reason of {len(reason)} characters")
    reason.encode()


def _is_meant(error: BaseException) -> bool:
    """Whether the error was raised on purpose: ours, protobuf's, ONNX Runtime's, whose bindings raise bare
    RuntimeErrors, or tokenizers', which raises bare Exceptions and panics."""
    return (
        isinstance(error, ValueError | OSError | DecodeError)
        or type(error) in (Exception, RuntimeError)
        or type(error).__name__ == "PanicException"
        or type(error).__module__.startswith("onnxruntime")
    )


class ModelYaml(Folder):
    """model.yaml of a model of tensors."""

    name, share, file = "model-yaml", 4_000, "model.yaml"

    def write(self, folder: Path) -> Path:
        buckets = {"a": [4, 8], "b": 4}
        batching: dict[str, Any] = {
            "max_rows": 4,
            "sessions": 2,
            "delay_ms": 1,
            "buckets": buckets,
            "padding": {"x": 0},
        }
        version = graphs.write_graph(folder, "tested", lengths(), **batching)
        file = version / "model.yaml"
        file.write_text(file.read_text() + "description: ''\nlicence: x\ndefaults:\n  top_p: 0.5\nengine_options: {}\n")
        return version

    @cached_property
    def known(self) -> Sequence[bytes]:
        text = self.samples[0].decode()
        bombs = [f"{text}engine_options:\n  {billion(levels)}\n" for levels in (3, 10)]
        nested = [text + start * depth for start in ("more: [", "? ", "- - ") for depth in (100, 1_000, 50_000)]
        values = [text.replace("engine_options: {}", f"engine_options: {{a: {value}}}") for value in VALUES]
        return [text.encode(), b"", *(bad.encode() for bad in (*bombs, *nested, *values))]

    def mutant(self, dice: random.Random) -> bytes:
        return mutate_yaml(dice, self.samples)

    def probe(self, engine: Engine) -> None:
        """Two requests that are padded differently."""
        if not isinstance(engine, BatchEngine):
            fail(f"a model of tensors is served by {type(engine).__name__}")
        engine.config = replace(engine.config, delay_s=0.0)
        feeds = {name: np.full(shape, 2, np.float32) for name, shape in (("p", (1, 2, 3)), ("q", (2, 1, 5)))}
        for name, feed in feeds.items():
            engine.add(leased(name, request("tested", {"x": feed})))
        outputs = {output.lease: output for _ in range(MOST_STEPS) for output in engine.step() or ()}
        must(outputs.keys() == feeds.keys(), "a request has no end")
        for name, output in outputs.items():
            if output.failure is None and callable(output.result):
                must((answered(output.result())["y"] == -feeds[name]).all(), "another answer")  # type: ignore[arg-type]


class Generation(Folder):
    """A file of a decoder's folder."""

    def write(self, folder: Path) -> Path:
        return write_model(folder, name="tested")

    def mutant(self, dice: random.Random) -> bytes:
        return mutate_json(dice, self.samples)

    def probe(self, engine: Engine) -> None:
        engine.add(leased("a", GOOD))
        ended = [output.last for _ in range(MOST_STEPS) for output in engine.step() or ()]
        must(ended and ended[-1] and sum(ended) == 1, "a job without one end")


class GenaiConfig(Generation):
    name, share, file = "genai-config", 600, "genai_config.json"

    @cached_property
    def known(self) -> Sequence[bytes]:
        return (*self.samples, b"", b"[" * 100_000, b'{"model":' * 50_000, b"9" * 5_000, b"\xff\xfe", b"null")


class TokenizerJson(Generation):
    name, share, file = "tokenizer", 700, "tokenizer.json"

    @cached_property
    def known(self) -> Sequence[bytes]:
        """Ids that leave very large holes."""
        bad = []
        for token_id in (-1, 1 << 24, 2**31, 2**32 - 1, 2**32, 2**64):
            for place in ("vocab", "added"):
                document = json.loads(self.samples[0])
                if place == "vocab":
                    document["model"]["vocab"]["¡"] = token_id
                else:
                    document["added_tokens"][0]["id"] = token_id
                bad.append(json.dumps(document).encode())
        return (*self.samples, b"", *bad)


class GenerationYaml(Generation):
    """model.yaml of a decoder."""

    name, share, file = "decoder-yaml", 400, "model.yaml"

    def mutant(self, dice: random.Random) -> bytes:
        return mutate_yaml(dice, self.samples)
