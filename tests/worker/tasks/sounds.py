"""Melodies: sounds of known tones, and graphs whose weights hear them; a model's folder around such a graph."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
import yaml
from onnx import TensorProto

from millrace.engine import EngineContext, Output, Work
from millrace.v1.tasks_pb2 import TranscribeRequest, TranscribeResponse
from services.worker import repository
from services.worker.batch import BatchEngine
from services.worker.batch.graph import Array
from services.worker.tasks.log_mel import LogMelFields, bands
from services.worker.tasks.sound import Samples
from tests.graphs import Dims, model
from tests.worker.steps import leased, step

Nodes = list[tuple[str, list[str], list[str], dict[str, Any]]]
RATE = 16_000
TONES = {"a": 500.0, "b": 900.0, "c": 1_500.0, "d": 2_400.0, "▁": 3_400.0}
"""Symbols and their frequencies in Hz; the blank is label 0."""
SYMBOLS = ("<blank>", *TONES)
TONE_S, GAP_S = 0.12, 0.08
MELS = LogMelFields(mels=40, n_fft=512, window_ms=25, hop_ms=10)
MEL_SOUND: dict[str, Any] = {"features": "log-mel", "log_mel": MELS.model_dump(exclude_defaults=True)}
"""`sound` in the model.yaml of a graph of `mel_graph`."""
SILENCE = 1.0
"""What the blank scores: more than any tone that is not there, and less than one that is."""


def melody(notes: str, rate: int = RATE, loudness: float = 0.3) -> Samples:
    """One tone after the other, with gaps; a space is a gap as long as a tone and its own."""
    sounds = [np.zeros(round(GAP_S * rate))]
    for note in notes:
        frequency = TONES.get(note, 0.0)
        sounds.append(loudness * np.sin(2 * np.pi * frequency * np.arange(round(TONE_S * rate)) / rate))
        sounds.append(np.zeros(round(GAP_S * rate)))
    return np.concatenate(sounds).astype(np.float32)


def encoded(samples: Array, rate: int = RATE, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """[samples] or [samples, channels] as a file's bytes."""
    file = BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def mel_graph(stride: int = 4, *, length: bool = False, frames: int | str = "frames") -> onnx.ModelProto:
    """log-mel [rows, frames, mels] → scores [rows, frames / stride, labels]: a label's is the mean, over `stride`
    frames, of the logarithm of the power in its tone's band. With `length`, what lies beyond it is silence."""
    weights = np.zeros((len(SYMBOLS), MELS.mels, stride), np.float32)
    for label, frequency in enumerate(TONES.values(), 1):
        weights[label, _band(frequency)] = 1 / stride
    bias = np.array([SILENCE] + [0] * len(TONES), np.float32)
    nodes: Nodes = [
        ("Transpose", ["sounding" if length else "features"], ["bands"], {"perm": [0, 2, 1]}),
        ("Conv", ["bands", "weights", "bias"], ["heard"], {"strides": [stride], "pads": [0, stride - 1]}),
        ("Transpose", ["heard"], ["scores"], {"perm": [0, 2, 1]}),
    ]
    inputs: dict[str, tuple[int, Dims]] = {"features": (TensorProto.FLOAT, ["batch", frames, MELS.mels])}
    outputs: dict[str, tuple[int, Dims]] = {"scores": (TensorProto.FLOAT, ["batch", "outputs", len(SYMBOLS)])}
    constants: dict[str, Any] = {"weights": weights, "bias": bias}
    if length:
        nodes, constants = [*MASK, *nodes], constants | MASK_CONSTANTS
        inputs["length"] = (TensorProto.INT64, ["batch"])
    return model(nodes, inputs, outputs, constants)


MASK: Nodes = [
    ("Shape", ["features"], ["frames"], {"start": 1, "end": 2}),
    ("Squeeze", ["frames"], ["count"], {}),
    ("Range", ["zero", "count", "one"], ["place"], {}),
    ("Unsqueeze", ["length", "axis1"], ["limit"], {}),
    ("Less", ["place", "limit"], ["inside"], {}),
    ("Unsqueeze", ["inside", "axis2"], ["mask"], {}),
    ("Where", ["mask", "features", "quiet"], ["sounding"], {}),
]
MASK_CONSTANTS: dict[str, Any] = {
    "zero": np.int64(0),
    "one": np.int64(1),
    "quiet": np.float32(-30),
    "axis1": np.array([1]),
    "axis2": np.array([2]),
}


def wave_graph(stride: int = 320, window: int = 400) -> onnx.ModelProto:
    """waveform [rows, samples] → scores [rows, frames, labels]: the logarithm of the power at each tone's frequency,
    by convolutions without padding, as wav2vec 2.0 has them."""
    time = np.arange(window) / RATE
    hann = np.hanning(window)
    waves = [wave(2 * np.pi * frequency * time) * hann for frequency in TONES.values() for wave in (np.sin, np.cos)]
    pairs = np.zeros((len(SYMBOLS), len(waves), 1), np.float32)
    for label in range(1, len(SYMBOLS)):
        pairs[label, 2 * label - 2 : 2 * label] = 1
    constants = {
        "axis": np.array([1]),
        "waves": np.array(waves, np.float32)[:, np.newaxis],
        "pairs": pairs,
        "quiet": np.array([10.0] + [1e-6] * len(TONES), np.float32),
    }
    nodes: Nodes = [
        ("Unsqueeze", ["waveform", "axis"], ["channel"], {}),
        ("Conv", ["channel", "waves"], ["products"], {"strides": [stride]}),
        ("Mul", ["products", "products"], ["squares"], {}),
        ("Conv", ["squares", "pairs", "quiet"], ["powers"], {}),
        ("Log", ["powers"], ["logs"], {}),
        ("Transpose", ["logs"], ["scores"], {"perm": [0, 2, 1]}),
    ]
    return model(
        nodes,
        {"waveform": (TensorProto.FLOAT, ["batch", "samples"])},
        {"scores": (TensorProto.FLOAT, ["batch", "frames", len(SYMBOLS)])},
        constants,
    )


def loudest_graph(frames: int | str = "frames") -> onnx.ModelProto:
    """log-mel [rows, mels, frames] → logits [rows, tones]: which tone is on average the loudest."""
    picks = np.zeros((len(TONES), MELS.mels), np.float32)
    for label, frequency in enumerate(TONES.values()):
        picks[label, _band(frequency)] = 1
    return model(
        [
            ("ReduceMean", ["features", "time"], ["mean"], {"keepdims": 0}),
            ("Gemm", ["mean", "picks"], ["logits"], {"transB": 1}),
        ],
        {"features": (TensorProto.FLOAT, ["batch", MELS.mels, frames])},
        {"logits": (TensorProto.FLOAT, ["batch", len(TONES)])},
        {"time": np.array([2]), "picks": picks},
    )


def _band(frequency: float) -> int:
    """The band that hears it best."""
    place = round(frequency * MELS.n_fft / RATE)
    return int(bands(MELS, RATE)[:, place].argmax())


def write_sound_model(
    graph: onnx.ModelProto,
    sound: Mapping[str, Any],
    *,
    task: str = "speech-recognition",
    output: str | None = "scores",
    symbols: Sequence[str] = SYMBOLS,
    **batching: Any,
) -> EngineContext:
    """A folder of its own, as an engine would be given it."""
    folder = Path(tempfile.mkdtemp()) / "tones" / "1"
    folder.mkdir(parents=True)
    onnx.save(graph, folder / "model.onnx")
    (folder / "labels.txt").write_text("\n".join(symbols) + "\n")
    file = {
        "name": "tones",
        "task": task,
        "engine": "batch",
        "graphs": {"cpu": {"path": "model.onnx"}},
        "labels": {output: "labels.txt"} if output else {},
        "sound": dict(sound),
        "batching": batching,
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(file))
    models, broken = repository.scan(folder.parents[1])
    assert not broken, broken
    return EngineContext(folder=folder, config=models[0].file.model_dump(), device="cpu", threads=1)


def transcriber(graph: onnx.ModelProto, sound: Mapping[str, Any], **batching: Any) -> BatchEngine:
    return BatchEngine(write_sound_model(graph, sound, **batching))


def asked(lease: str, audio: bytes, results: Sequence[bytes] = (), language: str = "") -> Work:
    body = TranscribeRequest(model="tones", audio=audio, language=language).SerializeToString()
    return replace(leased(lease, body, results), task="transcribe")


def transcription(engine: BatchEngine, audio: bytes, results: Sequence[bytes] = (), language: str = "") -> list[Output]:
    """A job's outputs, one for each window that is not in `results`."""
    engine.add(asked("a", audio, results, language))
    outputs = step(engine)
    while not outputs[-1].last:
        outputs += step(engine)
    assert engine.step() is None
    return outputs


def responses(outputs: Sequence[Output]) -> list[TranscribeResponse]:
    found = []
    for output in outputs:
        assert output.failure is None, output.failure
        assert isinstance(output.result, TranscribeResponse)
        found.append(output.result)
    return found


def text(outputs: Sequence[Output]) -> str:
    return "".join(response.text for response in responses(outputs))
