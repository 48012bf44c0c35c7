"""The built-in engines, the stubs and the documented example keep the contract."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.engine import EngineContext
from millrace.oip.inference_pb2 import ModelInferResponse
from millrace.v1.generation_pb2 import CompletionDelta, GenerateRequest, GenerateResponse, OutputFormat, Stopping
from services.worker.generation import GenerationEngine
from services.worker.stub import StubEngine
from tests.graphs import affine
from tests.worker.batch import requests as tensors
from tests.worker.conformance import Conformance, Example
from tests.worker.conformance.suite import GARBAGE
from tests.worker.counting import CountingEngine
from tests.worker.generation import jobs as texts
from tests.worker.generation.paged.test_engine import over_blocks

DOCUMENTED = Path(__file__).parents[3] / "docs" / "engines.md"


def deltas(results: Sequence[bytes]) -> object:
    """Tokens, text and finish reason of each completion."""
    parts: dict[int, list[CompletionDelta]] = {}
    for body in results:
        for delta in GenerateResponse.FromString(body).deltas:
            parts.setdefault(delta.index, []).append(delta)
    return {index: _whole(of_one) for index, of_one in parts.items()}


def _whole(parts: Sequence[CompletionDelta]) -> object:
    token_ids = [token_id for delta in parts for token_id in delta.token_ids]
    return token_ids, "".join(delta.text for delta in parts), parts[-1].finish_reason


def outputs(results: Sequence[bytes]) -> object:
    """Tensors as they are encoded."""
    return [list(ModelInferResponse.FromString(body).raw_output_contents) for body in results]


def counted(*lengths: int) -> list[bytes]:
    return [
        GenerateRequest(text="count", stopping=Stopping(max_tokens=length)).SerializeToString() for length in lengths
    ]


class TestCounting(Conformance):
    @pytest.fixture
    def example(self) -> Example:
        return Example(
            build=lambda: CountingEngine(slots=3, step_s=0.0005),
            requests=counted(4, 9, 2),
            bad_request=GenerateRequest(text="refuse").SerializeToString(),
            read=deltas,
        )


class TestStub(Conformance):
    @pytest.fixture
    def example(self) -> Example:
        config = {"slots": 3, "engine_options": {"step_ms": 0.5}}
        context = EngineContext(folder=Path(), config=config, device="cpu", threads=0)
        return Example(
            build=lambda: StubEngine(context),
            requests=counted(4, 9, 2),
            bad_request=GARBAGE,
            read=deltas,
            uses_epoch=True,
        )


class TestBatch(Conformance):
    @pytest.fixture(params=[{}, {"sessions": 2, "max_rows": 4}, {"delay_ms": 2}], ids=["one", "two", "patient"])
    def example(self, request: pytest.FixtureRequest) -> Example:
        engine = tensors.engine_of(affine(), **request.param)
        rows = np.arange(9, dtype=np.float32).reshape(3, 3)
        return Example(
            build=lambda: engine,
            requests=[tensors.request(x=rows[:1]), tensors.request(x=rows[1:]), tensors.request(x=rows)],
            bad_request=tensors.request(x=rows[:, :2]),
            read=outputs,
        )


@functools.cache
def generation(kind: str) -> GenerationEngine:
    match kind:
        case "prefill":
            return texts.shared_engine()
        case "prefixes":
            return texts.fresh_engine(prefix_cache_bytes=1 << 20)
        case "blocks":
            return over_blocks()
        case "few blocks":
            return over_blocks(blocks=12)
        case _:
            return texts.shared_engine(continuation=kind)


class TestGeneration(Conformance):
    @pytest.fixture(params=["prefill", "replay", "prefixes", "blocks", "few blocks"])
    def example(self, request: pytest.FixtureRequest) -> Example:
        engine = generation(request.param)
        return Example(
            build=lambda: engine,
            requests=[
                texts.request(texts.prompt(20), max_tokens=7),
                texts.request(texts.prompt(40, seed=1), max_tokens=12, temperature=0.9, top_p=0.9, seed=11),
                texts.request("the stop", max_tokens=3),
                texts.request(texts.prompt(30), max_tokens=6, temperature=1.1, seed=5, num_completions=2),
                texts.request("the", max_tokens=20, choices=OutputFormat.Choices(texts=["to stop", "to begin"])),
            ],
            bad_request=texts.request(texts.prompt(200)),
            read=deltas,
        )


def _documented() -> Any:
    """The suite's subclass as docs/engines.md shows it, of the engine that it shows."""
    names: dict[str, Any] = {"__name__": __name__}
    for block in re.findall(r"^```python\n(.*?)^```$", DOCUMENTED.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(DOCUMENTED), "exec"), names)
    return names["TestEcho"]


TestDocumented = _documented()
