"""`warmup` of model.yaml: what models of tensors, of texts and of generations are asked before they are served."""

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from services.worker.repository import warmup
from tests import graphs
from tests.fuzz.folders import loaded
from tests.fuzz.models import MODELS
from tests.fuzz.served import lengths
from tests.fuzz.target import Target
from tests.fuzz.texts import VALUES_OF_JSON, mutate_json
from tests.stub_models import write_stub

LIMIT_S = 1.0
"""For all requests of a model, which may ask for generations without an end."""
TENSOR = {"name": "x", "datatype": "FP32", "shape": [2, 1, 4]}
WARMUPS: Mapping[str, Sequence[Any]] = {
    "tensors": [
        {"infer": {"inputs": [TENSOR]}},
        {"infer": {"inputs": [{**TENSOR, "shape": ["1", 1, 1], "contents": {"fp32Contents": [0.5]}}], "id": "7"}},
        {"infer": {"inputs": [{**TENSOR, "shape": [1, 1, 1]}], "raw_input_contents": ["AACAPw=="]}},
    ],
    "embedding": [{"embed": {"texts": ["the cat", "a dog"], "truncate": True}}, {"infer": {"inputs": []}}],
    "stub": [{"generate": {"text": "hello", "stopping": {"max_tokens": 2}, "sampling": {"seed": "7"}}}],
}
"""By model: what it is asked before it is served."""
ODD_SHAPES: Sequence[Sequence[int]] = (
    *([2**62, 4, 4], [-1, 1, 1], [2**63], [], [0] * 9, [2**24, 1, 1], [2**31, 0, 1], [1, 2**31, 0]),
)
ODD_WARMUPS: Sequence[Any] = (
    *({}, {"job": {}}, {"infer": None}, {"infer": {}}, {"embed": {"texts": []}}, {"generate": {}}, {"more": 1}),
    *({"infer": {"inputs": [{**TENSOR, "shape": shape}]}} for shape in ODD_SHAPES),
    *({"infer": {"inputs": [{**TENSOR, "datatype": name}]}} for name in ("BYTES", "BF16", "FP16", "x", "", "BOOL")),
    *({"infer": {"inputs": [TENSOR] * count}} for count in (2, 100, 3_000)),
    *({"generate": {"text": "x", "stopping": {"max_tokens": most}}} for most in (1_000, 2**32 - 1, "NaN", 1e400)),
    {"infer": {"inputs": [{**TENSOR, "contents": {"fp32Contents": [1e39, "NaN", "Infinity"], "intContents": [1]}}]}},
    {"infer": {"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "contents": {"intContents": [300]}}]}},
    {"infer": {"inputs": [TENSOR], "parameters": {"millrace_job_id": {"stringParam": "x"}, "classification": {}}}},
    {"infer": {"inputs": [TENSOR], "outputs": [{"name": "y", "parameters": {"classification": {"int64Param": 3}}}]}},
    {"infer": {"modelName": "other", "modelVersion": "9"}, "embed": {}},
)


class Warmup(Target):
    """`warmup` of model.yaml: an input is the name of a model and what it says there, as JSON, which YAML reads too."""

    name, share = "warmup", 1_200
    growth_bytes = 512 << 20

    def open(self, stack: ExitStack) -> None:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(warmup, "warm", partial(warmup.warm, limit_s=LIMIT_S))
        self.root = Path(stack.enter_context(TemporaryDirectory()))

    @cached_property
    def folders(self) -> Mapping[str, Path]:
        """By model, its version's folder without a warm-up."""
        tensors = graphs.write_graph(self.root / "tensors", "tensors", lengths(), max_rows=4)
        stub = write_stub(self.root / "stubs", name="stub", step_ms=0)
        return {"tensors": tensors, "embedding": MODELS["embedding"].folder(), "stub": stub}

    @cached_property
    def known(self) -> Sequence[bytes]:
        odd = [_case(name, [one]) for name in WARMUPS for one in ODD_WARMUPS]
        values = [_case("tensors", value) for value in (*VALUES_OF_JSON, [{}] * 65, [WARMUPS["stub"][0]] * 64)]
        return [*(_case(name, [one]) for name, said in WARMUPS.items() for one in said), *odd, *values]

    def mutant(self, dice: random.Random) -> bytes:
        name = dice.choice(list(WARMUPS))
        return name.encode() + b" " + mutate_json(dice, [json.dumps(WARMUPS[name]).encode()])

    def run(self, data: bytes) -> bool:
        """Whether the model is served."""
        name, _, said = data.decode(errors="replace").partition(" ")
        source = self.folders[name]
        with TemporaryDirectory(dir=self.root) as folder:
            version = Path(folder) / source.parent.name / source.name
            shutil.copytree(source, version)
            file = version / "model.yaml"
            file.write_text(f"{file.read_text()}\nwarmup: {said}\n")
            return loaded(Path(folder)) is not None


def _case(name: str, said: object) -> bytes:
    return f"{name} {json.dumps(said)}".encode()
