"""Transcripts and vectors are judged by what a fleet answers, as `millrace evaluate` judges them."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from bench.models import bert
from millrace.optimizing import methods
from millrace.optimizing.order import Method
from millrace.optimizing.subjects.subject import Metric
from tests.optimizing.test_run import optimised, order
from tests.worker.tasks.sounds import MEL_SOUND, encoded, mel_graph, melody, write_sound_model
from tests.worker.tasks.texts import MAX_TOKENS, SHAPE, weights, write_text_model

SPOKEN = ("ab▁cd", "dab", "b▁a▁d", "cc▁ab")
TEXTS = ("the cat sat on the mat", "a dog ran", "river and stone", "数据")


def sounds(folder: Path) -> Path:
    """A data set: notes, and the words that they are."""
    folder.mkdir()
    lines = []
    for number, notes in enumerate(SPOKEN):
        (folder / f"{number}.wav").write_bytes(encoded(melody(notes)))
        lines.append(json.dumps({"audio": f"{number}.wav", "text": notes.replace("▁", " ")}))
    (folder / "labels.jsonl").write_text("\n".join(lines))
    return folder


def deafened(folder: Path, out: Path) -> None:
    """The same graph, and every weight is zero."""
    graph = onnx.load(folder / "model.onnx")
    for tensor in graph.graph.initializer:
        if tensor.name == "weights":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tensor.dims, np.float32), "weights"))
    onnx.save(graph, out)


@pytest.fixture
def hearing(tmp_path: Path) -> Path:
    written = write_sound_model(mel_graph(), {**MEL_SOUND, "stride": 640}).folder
    shutil.copytree(written.parents[1], tmp_path / "models")
    return tmp_path / "models" / "tones" / "1"


def test_a_candidate_that_hears_worse_is_found_by_the_word_error_rate(
    hearing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = methods.make

    def make(method: Method, version: object, out: Path, *rest: object) -> None:
        if method is Method.INT4:
            deafened(hearing, out)
        else:
            real(method, version, out, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(methods, "make", make)
    wanted = order(hearing, Method.FP16, Method.INT4, data=sounds(tmp_path / "spoken"), threads=1)
    outcome = optimised(wanted)
    judged = {one.name: one.judgement for one in outcome.candidates}
    assert {name: (found.metric, found.score) for name, found in judged.items() if found} == {
        "original": (Metric.WORD_ERROR_RATE, 0.0),
        "fp16": (Metric.WORD_ERROR_RATE, 0.0),
        "int4": (Metric.WORD_ERROR_RATE, 1.0),
    }
    assert outcome.choice.verdicts == {Method.FP16: "best", Method.INT4: "misses the loss by 99.50%"}
    assert sorted(path.name for path in hearing.parent.iterdir()) == ["1", "2"]
    assert sorted(path.name for path in hearing.parents[1].iterdir()) == ["tones"]


def test_vectors_are_judged_by_the_documents_that_they_find(tmp_path: Path) -> None:
    graph = bert.build(SHAPE, weights(), pooled=False)
    written = write_text_model(graph, "text-embedding", text={"max_tokens": MAX_TOKENS}).folder
    shutil.copytree(written.parents[1], tmp_path / "models")
    folder = tmp_path / "models" / written.parent.name / "1"
    data = tmp_path / "retrieval.jsonl"
    documents = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]
    queries = [{"query": text, "relevant": [str(number)]} for number, text in enumerate(TEXTS)]
    data.write_text("\n".join(map(json.dumps, [*documents, *queries])))
    original, half = optimised(order(folder, Method.FP16, data=data)).candidates
    for one in (original, half):
        assert one.judgement is not None
        assert (one.judgement.metric, one.judgement.score) == (Metric.RETRIEVAL, 1.0)


def test_what_no_worker_serves_is_told_in_the_worker_s_words(hearing: Path, tmp_path: Path) -> None:
    described = yaml.safe_load((hearing / "model.yaml").read_text())
    described["sound"]["stride"] = -1
    (hearing / "model.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(ValueError, match=r"the original: the worker refuses the model: tones/1: sound\.stride"):
        optimised(order(hearing, data=sounds(tmp_path / "spoken")))


def test_a_link_in_the_original_is_served_to_nobody(hearing: Path, tmp_path: Path) -> None:
    (hearing / "labels.txt").rename(tmp_path / "labels.txt")
    (hearing / "labels.txt").symlink_to(tmp_path / "labels.txt")
    with pytest.raises(ValueError, match="the original: the worker refuses the model: tones/1: "):
        optimised(order(hearing, data=sounds(tmp_path / "spoken")))


def test_data_that_no_evaluation_takes_are_refused_with_their_line(hearing: Path, tmp_path: Path) -> None:
    data = tmp_path / "labels.jsonl"
    data.write_text('{"audio": "nowhere.wav", "text": "a"}')
    with pytest.raises(ValueError, match=r"labels\.jsonl:1: there is no file nowhere\.wav"):
        optimised(order(hearing, data=data))
    assert sorted(path.name for path in hearing.parents[1].iterdir()) == ["tones"]


def test_a_sound_that_the_original_does_not_take_ends_it(hearing: Path, tmp_path: Path) -> None:
    data = sounds(tmp_path / "spoken")
    (data / "2.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="the original: could not be served: 1 examples have no answer; the first: "):
        optimised(order(hearing, data=data))
