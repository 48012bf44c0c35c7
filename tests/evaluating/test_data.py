"""What is a data set, and what is wrong with one that is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.evaluating.data import Dataset, read_dataset
from millrace.evaluating.kinds import Kind
from tests.evaluating.examples import write_lines


def read(path: Path, kind: Kind = "classify", **settings: Any) -> Dataset:
    return read_dataset(path, kind=kind, model_task="", **settings)


def test_lines_of_json_become_examples(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"text": "meow", "label": "cat"},
        {"id": "x", "text": "", "label": 7, "source": "ignored"},
    ]
    data = read(write_lines(tmp_path / "a.jsonl", records))
    assert [(one.id, one.text, one.truth) for one in data.examples] == [("1", "meow", "cat"), ("x", "", "7")]


def test_a_table_says_the_same_as_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('﻿text,label\n"two\nlines",cat\nwoof,dog\n', encoding="utf-8")
    examples = read(tmp_path / "a.csv").examples
    assert [(one.text, one.truth) for one in examples] == [("two\nlines", "cat"), ("woof", "dog")]


@pytest.mark.parametrize(
    ("kind", "line", "said"),
    [
        ("classify", "{", "a.jsonl:2: is not JSON"),
        ("classify", "[" * 100_000, "a.jsonl:2: is not JSON"),
        ("classify", '["text"]', "a.jsonl:2: must be an object"),
        ("classify", '{"text": "b"}', "a.jsonl:2: label: Field required"),
        ("classify", '{"label": "b"}', "a.jsonl:2: one of text, image, audio or file is needed"),
        ("classify", '{"text": "b", "image": "c.png", "label": "d"}', "a.jsonl:2: one of text, image, audio"),
        ("classify", '{"text": 5, "label": "d"}', "a.jsonl:2: text: Input should be a valid string"),
        ("classify", '{"text": "b", "label": null}', "a.jsonl:2: label: Input should be a valid string"),
        ("classify", '{"text": "b", "label": ""}', "a.jsonl:2: label: String should have at least 1 character"),
        ("classify", '{"text": "b", "label": "c", "id": "1"}', "a.jsonl:2: id: '1' is that of line 1 too"),
        ("classify", '{"file": "x.exe", "label": "c"}', "a.jsonl:2: file: x.exe is none of .png"),
        ("classify", '{"image": "none.png", "label": "c"}', "a.jsonl:2: there is no file none.png"),
        ("classify", '{"image": "../secret.png", "label": "c"}', "lies outside of the data's folder"),
        ("classify", '{"image": "/etc/passwd", "label": "c"}', "lies outside of the data's folder"),
        ("classify", r'{"text": "\ud800", "label": "c"}', "a.jsonl:2: is not JSON"),
        ("classify", r'{"text": "b", "label": "\ud800"}', "a.jsonl:2: is not JSON"),
        ("infer", '{"inputs": {}, "label": 1}', "a.jsonl:2: inputs: Dictionary should have at least 1 item"),
        ("infer", '{"inputs": {"x": [[1], [1, 2]]}, "label": 1}', "inputs.x: lists beside each other"),
        ("infer", '{"inputs": {"x": [{}]}, "label": 1}', "inputs.x: must hold numbers"),
        ("generate", '{"prompt": "a"}', "a.jsonl:2: reference: Field required"),
        ("perplexity", '{"text": ""}', "a.jsonl:2: text: String should have at least 1 character"),
        ("transcribe", '{"audio": "a.wav", "text": "  "}', "a.jsonl:2: text: String should have at least 1 character"),
        ("embed", '{"query": "a", "relevant": {}}', "relevant: Dictionary should have at least 1 item"),
        ("embed", '{"query": "a", "relevant": {"d": -1}}', "relevant.d: Input should be greater than 0"),
        ("embed", '{"query": "a", "relevant": ["nobody"]}', "finds 'nobody' relevant, which is no document's id"),
    ],
)
def test_a_bad_line_is_named_with_what_would_be_right(kind: Kind, line: str, said: str, tmp_path: Path) -> None:
    good = (
        '{"text": "a", "label": "b", "id": "1", "inputs": {"x": 1}, "prompt": "a", "reference": "b", "audio": "a.wav"}'
    )
    (tmp_path / "a.wav").write_bytes(b"")
    if kind == "classify":
        good = '{"text": "a", "label": "b", "id": "1"}'
    (tmp_path / "a.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl") as caught:
        read(tmp_path / "a.jsonl", kind)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text,label\na,b,c\n", "a.csv:2: must have 2 fields"),
        ("text,label\na,b\nc\n", "a.csv:3: must have 2 fields"),
        ('text,label\n"a,b\n', "a.csv:2: is not CSV"),
        ("text,label\n", "has no examples"),
        ("", "has no examples"),
    ],
)
def test_a_bad_row_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"a\.csv") as caught:
        read(tmp_path / "a.csv")
    assert said in str(caught.value)


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    write_lines(folder / "labels.jsonl", [{"file": "a.png", "label": "x"}])
    with pytest.raises(ValueError, match="outside"):
        read(folder)


def test_a_folder_is_read_by_its_labels(tmp_path: Path) -> None:
    for name in ("a.png", "b.JPG"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "labels.csv").write_text("file,label\na.png,cat\nb.JPG,dog\n")
    data = read(tmp_path)
    assert [(one.medium, one.file and one.file.name, one.truth) for one in data.examples] == [
        ("image", "a.png", "cat"),
        ("image", "b.JPG", "dog"),
    ]
    (tmp_path / "b.JPG").write_bytes(b"another")
    assert read(tmp_path).sha256 != data.sha256


def test_a_folder_without_labels_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"without labels\.csv"):
        read(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"none of \.jsonl"):
        read(tmp_path / "a.txt")


def test_tensors_come_row_by_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(6).reshape(2, 3), label=[1, 0])
    data = read_dataset(tmp_path / "a.npz", kind=None, model_task="image-classification")
    assert data.kind == "infer"
    assert [(one.arrays["x"].tolist(), one.truth) for one in data.examples] == [([0, 1, 2], "1"), ([3, 4, 5], "0")]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros(2)}, "needs 'label'"),
        ({"x": np.zeros(2), "label": np.zeros(3, int)}, "differ in their first dimension"),
        ({"x": np.zeros(2), "label": np.zeros(2)}, "must be one whole number or text"),
        ({"x": np.array([{}, {}]), "label": np.zeros(2, int)}, "no archive of plain arrays"),
    ],
)
def test_bad_archives_are_refused(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "a.npz", "infer")


def test_a_file_that_only_calls_itself_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="no archive of plain arrays"):
        read(tmp_path / "a.npz", "infer")


@pytest.mark.parametrize(
    ("task", "record", "kind"),
    [
        ("text-classification", {"text": "a", "label": "b"}, "classify"),
        ("image-classification", {"inputs": {"x": [1]}, "label": "b"}, "infer"),
        ("text-generation", {"text": "a"}, "perplexity"),
        ("text-generation", {"prompt": "a", "reference": "b"}, "generate"),
    ],
)
def test_the_kind_is_told_by_the_models_task_and_the_data(
    task: str, record: dict[str, Any], kind: Kind, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [record])
    assert read_dataset(path, kind=None, model_task=task).kind == kind


def test_a_task_that_is_not_known_has_to_be_told(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match="--task says it"):
        read_dataset(path, kind=None, model_task="protein-folding")


def test_queries_and_documents_share_a_file(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"id": "d", "text": "b"},
        {"id": 2, "text": "c"},
        {"query": "a", "relevant": ["d", 2]},
    ]
    data = read(write_lines(tmp_path / "a.jsonl", records), "embed", limit=1)
    assert [one.id for one in data.examples] == ["d", "2", "query-3"]
    assert data.examples[2].relevant == {"d": 1.0, "2": 1.0}
    with pytest.raises(ValueError, match="needs both"):
        read(write_lines(tmp_path / "b.jsonl", records[:2]), "embed")
