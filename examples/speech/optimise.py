"""The graph in whole numbers of 8 bits, two ways, and whether what that saves is worth what it loses.

    dynamic   weights alone; activations are scaled by what a run has, so that rows of one run touch each other
    static    activations too, scaled by what some training sounds had

The static one becomes the next version where, of the validation sounds' words, it hears at most MOST_LOSS fewer. The
held-out sounds only say what that was worth.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from examples.publish import publishing
from examples.speech import evaluate, export, score
from examples.speech.corpus import Corpus, Labelled
from examples.speech.evaluate import Features, Graph
from examples.speech.features import log_mel
from examples.speech.score import Score

MOST_LOSS = 0.005
OPERATORS = ["MatMul", "Gemm"]
ROUNDS = 30
FRAMES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A graph as it was measured: `milliseconds` are the median for 3 s of sound alone, on one thread."""

    name: str
    size_bytes: int
    milliseconds: float
    score: Score
    equal: int
    """Transcripts that are the original's."""
    published: bool


def optimise(
    folder: Path, calibration: Sequence[Features], judged_by: Corpus, sounds: Sequence[Labelled], target: Path
) -> list[Candidate]:
    """Measure the graph in `folder` and those made from it; publish the static one to `target`, or remove what is
    there where it loses too much."""
    heard = evaluate.heard(sounds)
    with tempfile.TemporaryDirectory() as work:
        paths = {"fp32": folder / "model.onnx", **make(folder / "model.onnx", calibration, Path(work))}
        found = {name: Graph(path).transcripts(heard) for name, path in paths.items()}
        scores = {name: evaluate.scores(sounds, found[name])["all"] for name in paths}
        good = error_rate(paths["int8, static"], judged_by) - error_rate(paths["fp32"], judged_by) <= MOST_LOSS
        if good:
            with publishing(target) as unfinished:
                shutil.copyfile(paths["int8, static"], unfinished / "model.onnx")
                export.describe(folder, unfinished, "int8")
        else:
            shutil.rmtree(target, ignore_errors=True)
        return [
            Candidate(
                name=name,
                size_bytes=path.stat().st_size,
                milliseconds=latency_ms(Graph(path)),
                score=scores[name],
                equal=sum(one == other for one, other in zip(found[name], found["fp32"], strict=True)),
                published=name == "fp32" or (good and name == "int8, static"),
            )
            for name, path in paths.items()
        ]


def error_rate(path: Path, sounds: Corpus) -> float:
    """The graph's, of words."""
    front_end = log_mel()
    heard = Graph(path).transcripts([front_end(sounds.sound(index)) for index in range(len(sounds))])
    return score.score([score.words(digits) for digits in sounds.digits], heard).wer


def make(original: Path, calibration: Sequence[Features], work: Path) -> dict[str, Path]:
    """The graphs, by name, in `work`."""
    prepared, dynamic, static = (work / name for name in ("prepared.onnx", "dynamic.onnx", "static.onnx"))
    quant_pre_process(original, prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, dynamic, op_types_to_quantize=OPERATORS, per_channel=True)
    quantize_static(
        prepared,
        static,
        Sounds(calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=OPERATORS,
        per_channel=True,
    )
    return {"int8, dynamic": dynamic, "int8, static": static}


class Sounds(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
    """One at a time, as the quantiser asks for them."""

    def __init__(self, features: Sequence[Features]) -> None:
        self._left: Iterator[Features] = iter(features)

    def get_next(self) -> dict[str, Features] | None:
        one = next(self._left, None)
        return None if one is None else {"features": one[None]}


def latency_ms(graph: Graph) -> float:
    """The median of some runs."""
    features = np.zeros((1, FRAMES, graph.session.get_inputs()[0].shape[2]), np.float32)
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        graph.run(features)
        times.append(time.perf_counter() - started)
    return 1_000 * statistics.median(times)
