"""Requests that a model answers before it is served."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from millrace.engine import EngineContext, Output, Work
from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.v1.generation_pb2 import GenerateRequest
from services.worker import repository
from services.worker.batch import BatchEngine
from services.worker.repository import warmup
from services.worker.repository.model import Model
from services.worker.stub import StubEngine
from tests import graphs
from tests.models import write_model
from tests.stub_models import write_stub

GENERATE = {"generate": {"text": "a b", "stopping": {"maxTokens": 3}}}
X = {"name": "x", "datatype": "FP32", "shape": [2, 3]}


class _Plain(yaml.SafeDumper):
    """Repeats what comes twice, for aliases are not taken."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def add(version: Path, *requests: Any) -> None:
    file = version / "model.yaml"
    file.write_text(yaml.dump(yaml.safe_load(file.read_text()) | {"warmup": list(requests)}, Dumper=_Plain))


def only(folder: Path) -> Model:
    (model,), broken = repository.scan(folder)
    assert not broken
    return model


def stub(folder: Path, *requests: Any, **options: object) -> Path:
    add(write_stub(folder, **{"step_ms": 0} | options), *requests)  # type: ignore[arg-type]
    return folder


def tensors(folder: Path, *requests: Any) -> Path:
    add(graphs.write_graph(folder, "tested", graphs.affine(), max_rows=4), *requests)
    return folder


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """What engines were given."""
    given: list[Work] = []
    for engine in (StubEngine, BatchEngine):
        real = engine.add

        def added(self: Any, work: Work, real: Any = real) -> None:
            given.append(work)
            real(self, work)

        monkeypatch.setattr(engine, "add", added)
    return given


def test_requests_are_run_to_their_ends_before_the_engine_is_answered(tmp_path: Path, works: list[Work]) -> None:
    engine = repository.load(only(stub(tmp_path, GENERATE, GENERATE)), "cpu", threads=1)
    assert engine.counters()["completion_tokens"] == 6
    assert [work.task for work in works] == ["generate", "generate"]
    request = GenerateRequest.FromString(works[0].request)
    assert (request.model, request.model_version, request.text) == ("stub", "1", "a b")
    assert engine.step() is None


def test_names_may_be_as_the_proto_has_them(tmp_path: Path, works: list[Work]) -> None:
    repository.load(only(stub(tmp_path, {"generate": {"stopping": {"max_tokens": 2}}})), "cpu", threads=1)
    assert GenerateRequest.FromString(works[0].request).stopping.max_tokens == 2


def test_a_decoder_is_warmed(tmp_path: Path) -> None:
    add(write_model(tmp_path), GENERATE)
    engine = repository.load(only(tmp_path), "cpu", threads=1)
    assert engine.capacity().jobs == 4


def test_tensors_without_contents_get_zeros(tmp_path: Path, works: list[Work]) -> None:
    engine = repository.load(only(tensors(tmp_path, {"infer": {"inputs": [X]}})), "cpu", threads=1)
    assert engine.counters()["rows"] == 2
    request = ModelInferRequest.FromString(works[0].request)
    assert list(request.raw_input_contents) == [bytes(24)]
    assert (request.model_name, request.model_version) == ("tested", "1")


def test_contents_that_are_there_go_as_they_are(tmp_path: Path, works: list[Work]) -> None:
    typed = X | {"contents": {"fp32Contents": [1, 2, 3, 4, 5, 6]}}
    raw = {"inputs": [X], "rawInputContents": ["AAAA" * 8]}
    repository.load(only(tensors(tmp_path, {"infer": {"inputs": [typed]}}, {"infer": raw})), "cpu", threads=1)
    first, second = (ModelInferRequest.FromString(work.request) for work in works)
    assert list(first.raw_input_contents) == [struct.pack("<6f", 1, 2, 3, 4, 5, 6)]
    assert list(second.raw_input_contents) == [bytes(24)]


def test_texts_are_empty_and_halves_are_zero_beside_contents(tmp_path: Path) -> None:
    inputs = [
        {"name": "t", "datatype": "BYTES", "shape": [2]},
        {"name": "u", "datatype": "BYTES", "shape": [1], "contents": {"bytesContents": ["YWI="]}},
        {"name": "h", "datatype": "FP16", "shape": [3]},
        {"name": "i", "datatype": "INT8", "shape": [2], "contents": {"intContents": [-1, 2]}},
    ]
    model = only(stub(tmp_path, {"infer": {"inputs": inputs}}))
    (one,) = warmup.requests(model.file, "1")
    assert isinstance(one.request, ModelInferRequest)
    warmup._fill(one.request, "warmup[0]")
    assert list(one.request.raw_input_contents) == [bytes(8), b"\2\0\0\0ab", bytes(6), b"\xff\2"]
    assert not any(tensor.HasField("contents") for tensor in one.request.inputs)


def scanned(folder: Path) -> str:
    models, (broken,) = repository.scan(folder)
    assert not models
    return broken.reason


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, "holds one of generate, embed, classify, transcribe, infer, and nothing else"),
        ({"generate": {}, "embed": {}}, "oneof"),
        ({"generate": {"txt": "a"}}, 'no field named "txt"'),
        ({"generate": {"text": 3}}, "text"),
        ({"generate": {"stopping": {"max_tokens": -1}}}, "max_tokens"),
        ({"generate": "a"}, ""),
        ({"generate": {"sampling": {3: 4}}}, ""),
        ({"generate": {"text": "a", "job": {"jobId": "x"}}}, "generate.job: nobody waits"),
        ({"generate": {"text": "a"}, "job": {"jobId": "x"}}, "and nothing else"),
        ({"generate": {"model": "other"}}, "model: 'other' is another model than this one, 'stub'"),
        ({"infer": {"modelVersion": "2"}}, "model_version: '2' is another"),
        ({"infer": {"inputs": [{"name": "x", "datatype": "FLOAT", "shape": [1]}]}}, "datatype: there is no 'FLOAT'"),
        ({"infer": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}}, "must not be negative"),
        ({"infer": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2**31, 2**31]}]}}, "bytes of zeros"),
    ],
)
def test_a_request_that_is_none_breaks_the_model_and_is_named(tmp_path: Path, request_: Any, expected: str) -> None:
    reason = scanned(stub(tmp_path, GENERATE, request_))
    assert reason.startswith("warmup[1]: ")
    assert expected in reason


def test_what_is_no_list_of_requests_is_refused(tmp_path: Path) -> None:
    assert scanned(stub(tmp_path / "a", 3)).startswith("model.yaml: warmup.0: ")
    assert "warmup: " in scanned(stub(tmp_path / "b", *[GENERATE] * 65))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"infer": {"inputs": [X | {"name": "z"}]}}, r"^warmup\[0\]: inputs: x is missing$"),
        ({"infer": {"inputs": [X | {"shape": [2, 4]}]}}, r"warmup\[0\]: inputs\[0\].shape: x must have 3"),
        ({"infer": {"inputs": [X | {"contents": {"fp32Contents": [1]}}]}}, r"warmup\[0\]: inputs\[0\]: x: "),
        ({"infer": {"inputs": [X | {"shape": [5, 3]}]}}, "a request has 1 to 4 rows, not 5"),
        (GENERATE, r"^warmup\[0\]: the model answers infer, and not generate$"),
    ],
)
def test_a_request_that_fails_is_why_the_model_is_not_served(tmp_path: Path, request_: Any, expected: str) -> None:
    model = only(tensors(tmp_path, request_))
    with pytest.raises(ValueError, match=expected):
        repository.load(model, "cpu", threads=1)


def test_contents_that_do_not_fit_their_datatype_are_told(tmp_path: Path) -> None:
    wrong = {"name": "x", "datatype": "INT8", "shape": [1], "contents": {"intContents": [300]}}
    with pytest.raises(ValueError, match=r"^warmup\[0\]: infer.inputs\[0\].contents: byte format"):
        repository.load(only(tensors(tmp_path, {"infer": {"inputs": [wrong]}})), "cpu", threads=1)


def test_a_request_without_an_end_is_given_up(tmp_path: Path) -> None:
    model = only(stub(tmp_path, {"generate": {"stopping": {"maxTokens": 1_000_000}}}))
    context = EngineContext(folder=model.folder, config=model.file.model_dump(), device="cpu", threads=1)
    engine = StubEngine(context)
    with pytest.raises(ValueError, match=r"^warmup\[0\]: no end within 0.05 s$"):
        warmup.warm(engine, model, limit_s=0.05)


def test_an_engine_that_rests_before_the_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = only(stub(tmp_path, GENERATE))
    monkeypatch.setattr(StubEngine, "step", lambda self: None)
    with pytest.raises(ValueError, match=r"warmup\[0\]: the engine rests before the request's end"):
        repository.load(model, "cpu", threads=1)


def test_a_result_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> Any:
        raise RuntimeError("no result")

    def step(self: object) -> Sequence[Output]:
        return [Output(lease="warmup[0]", result=breaks, last=True)]

    model = only(stub(tmp_path, GENERATE))
    monkeypatch.setattr(StubEngine, "step", step)
    with pytest.raises(ValueError, match="RuntimeError: no result"):
        repository.load(model, "cpu", threads=1)
