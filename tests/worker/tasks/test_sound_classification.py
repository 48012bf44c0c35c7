"""Sounds of one tone through a real graph and the batch engine: which tone it is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from millrace.engine import Output, Work
from millrace.errors import Code
from millrace.v1.tasks_pb2 import ClassifyRequest, ClassifyResponse
from services.worker.batch import BatchEngine
from tests.worker.steps import leased, step
from tests.worker.tasks.sounds import (
    MEL_SOUND,
    RATE,
    TONES,
    encoded,
    loudest_graph,
    melody,
    write_sound_model,
)

SOUND = {**MEL_SOUND, "layout": "mels-frames"}
NAMES = tuple(TONES)


def classifier(sound: Mapping[str, Any], frames: int | str = "frames", **batching: Any) -> BatchEngine:
    fields, task = {**SOUND, **sound}, "audio-classification"
    graph = loudest_graph(frames)
    return BatchEngine(write_sound_model(graph, fields, task=task, output="logits", symbols=NAMES, **batching))


def asked(lease: str, **fields: Any) -> Work:
    body = ClassifyRequest(model="tones", **fields).SerializeToString()
    return replace(leased(lease, body), task="classify")


def answer(engine: BatchEngine, **fields: Any) -> Output:
    engine.add(asked("a", **fields))
    (output,) = step(engine)
    assert output.last
    return output


def labels(output: Output) -> list[str]:
    assert isinstance(output.result, ClassifyResponse)
    assert abs(sum(label.score for label in output.result.labels)) <= 1 + 1e-5
    return [label.name for label in output.result.labels]


def tone(name: str, seconds: float = 1.0, rate: int = RATE) -> bytes:
    return encoded(0.3 * np.sin(2 * np.pi * TONES[name] * np.arange(round(seconds * rate)) / rate), rate, "FLAC")


@pytest.fixture(scope="module")
def listener() -> BatchEngine:
    return classifier({"seconds": 1})


@pytest.mark.parametrize("rate", [RATE, 22_050, 48_000])
def test_a_sound_gets_its_label_at_any_rate(listener: BatchEngine, rate: int) -> None:
    for name in TONES:
        assert labels(answer(listener, audio=tone(name, rate=rate), top_k=1)) == [name]
    assert sorted(labels(answer(listener, audio=tone("a")))) == sorted(NAMES)


def test_sounds_of_any_length_share_a_run_where_the_model_has_one_length(listener: BatchEngine) -> None:
    for lease, seconds in (("x", 0.3), ("y", 1.0), ("z", 7.5)):
        listener.add(asked(lease, audio=tone("b", seconds), top_k=1))
    outputs = step(listener)
    assert [(output.lease, *labels(output)) for output in outputs] == [("x", "b"), ("y", "b"), ("z", "b")]


def test_what_lies_behind_the_models_length_is_not_heard() -> None:
    audio = encoded(np.concatenate([melody("a" * 10), melody("d" * 100)]))
    assert labels(answer(classifier({"seconds": 2}), audio=audio, top_k=1)) == ["a"]
    assert labels(answer(classifier({"window_s": 2}), audio=audio, top_k=1)) == ["a"]
    assert labels(answer(classifier({"window_s": 20}), audio=audio, top_k=1)) == ["d"]


def test_damage_that_is_not_heard_does_no_harm(listener: BatchEngine) -> None:
    audio = tone("c", 30)
    assert labels(answer(listener, audio=audio[: len(audio) // 2], top_k=1)) == ["c"]


def test_a_graph_of_fixed_length_says_itself_how_long_sounds_are() -> None:
    engine = classifier({}, frames=101)
    for seconds in (0.2, 1, 3):
        assert labels(answer(engine, audio=tone("d", seconds), top_k=1)) == ["d"]
    assert labels(answer(classifier({"seconds": 1}, frames=101), audio=tone("d", 3), top_k=1)) == ["d"]
    with pytest.raises(ValueError, match=r"sound\.seconds: are 201 frames, and the graph takes 101"):
        classifier({"seconds": 2}, frames=101)


@pytest.mark.parametrize("fields", [{"audio": b"nonsense"}, {"text": "a"}, {"image": b"RIFF"}, {}])
def test_what_is_no_sound_is_refused(listener: BatchEngine, fields: Mapping[str, Any]) -> None:
    failure = answer(listener, **fields).failure
    assert failure is not None
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, "audio")


def test_a_request_that_is_none_is_refused(listener: BatchEngine) -> None:
    listener.add(replace(asked("a"), request=b"\xff"))
    (output,) = step(listener)
    assert output.failure is not None
    assert output.failure.message == "the request is not a ClassifyRequest"


def test_a_job_whose_log_is_complete_only_ends(listener: BatchEngine) -> None:
    listener.add(replace(asked("a", audio=tone("a")), results=[b""]))
    (output,) = step(listener)
    assert (output.result, output.failure, output.last) == (None, None, True)


def test_buckets_are_refused_where_nobody_is_told_the_length() -> None:
    with pytest.raises(ValueError, match=r"batching\.buckets\.frames: "):
        classifier({}, buckets={"frames": 64})
