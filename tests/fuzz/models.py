"""Small models for typed requests, each with a request whose answer is known."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto
from PIL import Image

from bench.models import bert
from millrace.queue import ModelEntry
from millrace.v1.tasks_pb2 import ClassifyRequest, EmbedRequest, TranscribeRequest
from services.worker import repository
from services.worker.batch import BatchEngine
from tests import graphs
from tests.worker.tasks.sounds import MEL_SOUND, TONES, encoded, loudest_graph, melody, wave_graph, write_sound_model
from tests.worker.tasks.test_text_classification import GRAPH
from tests.worker.tasks.texts import MAX_TOKENS, SHAPE, weights, write_text_model

MOST_PIXELS = 1_000_000
SIDE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """One model."""

    task: str
    folder: Callable[[], Path]
    """Writes its version's folder, in a repository of its own."""
    good: bytes
    """A request."""
    may_fail: bool = False
    """Whether inputs in order may be more than its numbers can hold."""

    def engine(self) -> BatchEngine:
        (model,), broken = repository.scan(self.folder().parents[1])
        assert not broken
        engine = repository.load(model, "cpu", threads=1)
        assert isinstance(engine, BatchEngine)
        return engine

    @property
    def entry(self) -> ModelEntry:
        return ModelEntry(name="tested", version="1", task="", digest="", platform="x", tasks=("infer", self.task))


def colours(channels: int) -> onnx.ModelProto:
    """[rows, channels, 8, 8] → logits [rows, channels]: which channel is the brightest."""
    return graphs.model(
        [("ReduceMean", ["x", "axes"], ["logits"], {"keepdims": 0})],
        {"x": (TensorProto.FLOAT, ["batch", channels, SIDE, SIDE])},
        {"logits": (TensorProto.FLOAT, ["batch", channels])},
        {"axes": np.array([2, 3])},
    )


def image_folder(channels: int, **image: Any) -> Path:
    version = graphs.write_graph(Path(tempfile.mkdtemp()), "tested", colours(channels), max_rows=8)
    written = yaml.safe_load((version / "model.yaml").read_text())
    keys = {"task": "image-classification", "image": {"max_pixels": MOST_PIXELS, **image}}
    (version / "model.yaml").write_text(yaml.safe_dump(written | keys))
    return version


def text_folder(graph: onnx.ModelProto, task: str) -> Path:
    return write_text_model(graph, task, text={"max_tokens": MAX_TOKENS}, batching={"max_rows": 8}).folder


def red() -> bytes:
    file = BytesIO()
    Image.new("RGB", (12, 9), (200, 10, 30)).save(file, "PNG")
    return file.getvalue()


def listener() -> Path:
    sound = {**MEL_SOUND, "layout": "mels-frames", "seconds": 1, "most_s": 60}
    task = "audio-classification"
    return write_sound_model(loudest_graph(), sound, task=task, output="logits", symbols=tuple(TONES)).folder


def transcriber() -> Path:
    sound = {"stride": 320, "window_s": 1.2, "overlap_s": 0.2, "most_s": 6, "language": "en"}
    return write_sound_model(wave_graph(), sound).folder


_TEXTS = EmbedRequest(model="tested", texts=["the cat", "a dog"]).SerializeToString()
_TEXT = ClassifyRequest(model="tested", text="the cat").SerializeToString()
_IMAGE = ClassifyRequest(model="tested", image=red()).SerializeToString()
_SPOKEN = TranscribeRequest(model="tested", audio=encoded(melody("ab c"))).SerializeToString()
_TONE = ClassifyRequest(model="tested", audio=encoded(melody("bbbb"), form="FLAC")).SerializeToString()
MODELS: Mapping[str, Small] = {
    "embedding": Small(
        task="embed",
        folder=lambda: text_folder(bert.build(SHAPE, weights(), pooled=False), "text-embedding"),
        good=_TEXTS,
    ),
    "labels": Small(task="classify", folder=lambda: text_folder(GRAPH, "text-classification"), good=_TEXT),
    "crop": Small(task="classify", folder=lambda: image_folder(3, shortest=10), good=_IMAGE),
    "pad": Small(task="classify", folder=lambda: image_folder(1, resize="pad", invert=True), good=_IMAGE),
    "stretch": Small(task="classify", folder=lambda: image_folder(3, resize="stretch", filter="lanczos"), good=_IMAGE),
    "transcriber": Small(task="transcribe", folder=transcriber, good=_SPOKEN, may_fail=True),
    "listener": Small(task="classify", folder=listener, good=_TONE, may_fail=True),
}
IMAGES, SOUNDS = ("crop", "pad", "stretch"), ("transcriber", "listener")
