"""How well a graph does, and what of it a worker would run at once."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from millrace.exporting import graphs as exported
from millrace.exporting.parity import Array
from millrace.optimizing import graphs, methods, subjects, version
from millrace.optimizing.order import Calibration, Method
from millrace.optimizing.subjects import Metric, Subject
from millrace.optimizing.subjects.decoder import log_probabilities
from millrace.optimizing.subjects.rows import Texts, read
from tests.graphs import attention, mixing, model
from tests.optimizing.models import CLASSES, ROOT, ROWS, WIDTH, network, write, write_data, write_tokenizer
from tests.worker.tasks.sounds import wave_graph


def subject(folder: Path, data: Path | None = None) -> Subject:
    found = version.read(folder, "cpu")
    return subjects.choose(found, graphs.open_session(found.graph, "cpu", 1), data)


def test_a_graph_of_samples_is_tried_with_a_second_of_sound(tmp_path: Path) -> None:
    found = subject(write(tmp_path, wave_graph()))
    (outputs, *_) = found.probe()
    assert outputs["scores"].shape[:2] == (1, (16_000 - 400) // 320 + 1)


def test_random_rows_that_would_fill_the_memory_are_not_made(tmp_path: Path) -> None:
    graph = model(
        [("Reshape", ["x", "sides"], ["y"], {})],
        {"x": (TensorProto.FLOAT, ["batch", 3, "height", "width"])},
        {"y": (TensorProto.FLOAT, ["batch", "values"])},
        {"sides": np.array([-1, 3 * 1_000_000])},
    )
    with pytest.raises(ValueError, match="the graph takes no random inputs: give some with --data"):
        subject(write(tmp_path, graph))


def accuracy(found: Subject) -> float:
    parts = list(found.judge())
    return Metric.ACCURACY.of(sum(part for part, _ in parts), sum(count for _, count in parts))


def test_accuracy_counts_rows_whose_largest_score_is_the_label(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.npz")
    with np.load(data) as right:
        x, label = right["x"], right["label"]
    label[: ROWS // 4] = (label[: ROWS // 4] + 1) % CLASSES
    np.savez(data, x=x, label=label)
    assert accuracy(subject(write(tmp_path), data)) == 0.75


def test_labels_may_be_names(tmp_path: Path) -> None:
    folder, names = write(tmp_path, labels={"scores": "labels.txt"}), ["ant", "bee", "cat", "dog"]
    (folder / "labels.txt").write_text("\n".join(names))
    data = write_data(tmp_path / "data.npz")
    with np.load(data) as numbers:
        np.savez(data, x=numbers["x"], label=np.array(names)[numbers["label"]])
    assert accuracy(subject(folder, data)) == 1.0


def test_rows_that_know_of_each_other_run_alone(tmp_path: Path) -> None:
    assert subject(write(tmp_path / "a", mixing())).row_counts() == [1]
    assert subject(write(tmp_path / "b", batching={"max_rows": 12})).row_counts() == [1, 2, 4, 8, 12]


def test_ranges_over_all_rows_make_them_depend_on_each_other(tmp_path: Path) -> None:
    folder = write(tmp_path)
    original = version.read(folder, "cpu")
    for method, counts in ((Method.INT8, [1]), (Method.INT8_BLOCK, [1, 2, 4, 8, 16, 32])):
        methods.make(method, original, tmp_path / "made.onnx", None, Calibration.MINMAX)
        session = graphs.open_session(tmp_path / "made.onnx", "cpu", 1)
        assert subjects.choose(original, session, None).row_counts() == counts


def test_a_graph_of_so_many_rows_runs_so_many(tmp_path: Path) -> None:
    found = subject(write(tmp_path, network(rows=5)), write_data(tmp_path / "data.npz"))
    assert found.row_counts() == [5]
    assert accuracy(found) == 1.0


def test_texts_are_padded_to_the_longest_and_masked(tmp_path: Path) -> None:
    folder = write(tmp_path, attention(), task="text-embedding", text={"max_tokens": 3})
    write_tokenizer(folder, words=10)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in ("w2", "w3 w4 w5 w6", "w7")))
    found = version.read(folder, "cpu")
    ports = exported.inputs(graphs.open_session(found.graph, "cpu", 1))
    feed = read(tmp_path / "texts.jsonl", found, ports).feed([0, 1])
    assert feed["input_ids"].tolist() == [[2, 0, 0], [3, 4, 5]]
    assert feed["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert [outputs["mean"].shape for outputs in subject(folder, tmp_path / "texts.jsonl").probe()] == [(1, 8)] * 3


def test_lines_of_text_are_rows_too(tmp_path: Path) -> None:
    folder = write(tmp_path, attention(), text={"max_tokens": 8})
    write_tokenizer(folder, words=10)
    (tmp_path / "texts.txt").write_text("w2 w3\n\nw4\n")
    found = version.read(folder, "cpu")
    rows = Texts(tmp_path / "texts.txt", found, exported.inputs(graphs.open_session(found.graph, "cpu", 1)))
    assert (rows.count, rows.labels) == (2, None)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros((2, WIDTH))}, "no array x; it has y"),
        ({"x": np.zeros((2, 3))}, r"x has the shape \[2, 3\], and the model takes float32 \[batch, 64\]"),
        ({"x": np.zeros((0, WIDTH))}, "x has the shape"),
        ({"x": np.zeros((2, WIDTH)), "label": np.zeros(3)}, "differ in their first dimension"),
        ({"x": np.array([{}])}, "no archive of plain arrays"),
    ],
)
def test_data_that_does_not_fit_is_refused(tmp_path: Path, arrays: Mapping[str, Array], words: str) -> None:
    np.savez(tmp_path / "data.npz", allow_pickle=True, **arrays)
    with pytest.raises(ValueError, match=words):
        subject(write(tmp_path), tmp_path / "data.npz")


def test_texts_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("w2\n")
    with pytest.raises(ValueError, match=r"need tokenizer\.json"):
        subject(write(tmp_path, attention()), tmp_path / "texts.txt")


def test_labels_with_two_outputs_of_scores_are_refused(tmp_path: Path) -> None:
    two = model(
        [("Identity", ["x"], ["a"], {}), ("Neg", ["x"], ["b"], {})],
        {"x": (TensorProto.FLOAT, ["batch", 3])},
        {name: (TensorProto.FLOAT, ["batch", 3]) for name in "ab"},
        {},
    )
    np.savez(tmp_path / "data.npz", x=np.eye(3), label=np.arange(3))
    with pytest.raises(ValueError, match=r"classes\.output"):
        subject(write(tmp_path / "a", two), tmp_path / "data.npz")
    assert accuracy(subject(write(tmp_path / "b", two, classes={"output": "a"}), tmp_path / "data.npz")) == 1.0


def test_perplexity_is_that_of_the_windows_tokens(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("import os\nimport sys\n")
    folder = ROOT / "models" / "pycode" / "1"
    ((total, count),) = subject(folder, tmp_path / "text.txt").judge()
    (outputs,) = subject(folder, tmp_path / "text.txt").probe()
    assert outputs["logits"].shape == (1, count + 1, 4096)
    assert 1 < Metric.PERPLEXITY.of(total, count) < 4096


def test_log_probabilities_are_those_of_a_softmax() -> None:
    logits = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8]])) + 100
    assert log_probabilities(logits, np.array([1, 2])) == pytest.approx(np.log([0.5, 0.8]))


def test_a_step_of_a_decoder_runs_at_every_batch_size() -> None:
    found = subject(ROOT / "models" / "pycode" / "1")
    assert found.row_counts() == [1, 2, 4, 8, 16, 32]
    for rows in found.row_counts():
        found.repeat(rows)()


def test_a_paged_decoder_is_refused(tmp_path: Path) -> None:
    source = ROOT / "models" / "pycode" / "1"
    folder = tmp_path / "paged" / "1"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text((source / "model.yaml").read_text())
    config = json.loads((source / "genai_config.json").read_text())
    config["model"]["decoder"]["inputs"]["block_table"] = "block_table"
    (folder / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="PagedAttention"):
        version.read(folder, "cpu")
