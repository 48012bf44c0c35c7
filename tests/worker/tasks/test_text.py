"""Texts become token ids: lengths, padding, names of inputs, and what files beside the tokenizer say."""

import json
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from tokenizers import models

from millrace.engine import EngineContext
from services.worker.batch.graph import DATATYPES, Port, Ports
from services.worker.batch.processor import Rejected
from services.worker.tasks.text import TextFrontEnd, Tokens, read_fields
from tests.graphs import identity
from tests.worker.tasks.texts import tokenizer, write_text_model

NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def front_end(
    names: tuple[str, ...] = NAMES,
    files: dict[str, str] | None = None,
    length: int | str = "sequence",
    kind: str = "tensor(int64)",
    batching: dict[str, Any] | None = None,
    **text: Any,
) -> TextFrontEnd:
    keys = {"text": {"max_tokens": 500} | text, "batching": batching or {}}
    written = write_text_model(identity(TensorProto.FLOAT), "text-embedding", files, **keys)
    context = EngineContext(folder=written.folder, config=written.file.model_dump(), device="cpu", threads=1)
    datatype, dtype = DATATYPES[kind]
    inputs = tuple(Port(name=name, datatype=datatype, dtype=np.dtype(dtype), dims=("rows", length)) for name in names)
    return TextFrontEnd(read_fields(context.config), context, Ports(inputs=inputs, outputs=(), batched=True))


def tokens(front: TextFrontEnd, text: str, *, truncate: bool = False) -> Tokens:
    return front.tokens(text, "text", truncate=truncate, advice="cut it")


def test_texts_are_padded_to_the_same_length() -> None:
    front = front_end()
    feed = front.feed([tokens(front, "the cat"), tokens(front, "a dog ran on")])
    ids = [tokenizer().encode(text).ids for text in ("the cat", "a dog ran on")]
    assert {name: array.shape for name, array in feed.items()} == dict.fromkeys(NAMES, (2, 16))
    assert [row[: len(own)].tolist() for row, own in zip(feed["input_ids"], ids, strict=True)] == ids
    assert feed["input_ids"][:, 6:].max() == 0
    assert feed["attention_mask"].sum(axis=1).tolist() == [4, 6]
    assert feed["position_ids"].tolist() == [list(range(16))] * 2
    assert {array.dtype for array in feed.values()} == {np.dtype(np.int64)}


def test_types_and_names_are_the_graphs() -> None:
    front = front_end(("ids", "mask"), kind="tensor(int32)", input_ids="ids", attention_mask="mask")
    feed = front.feed([tokens(front, "the cat")])
    assert {name: array.dtype for name, array in feed.items()} == dict.fromkeys(("ids", "mask"), np.dtype(np.int32))


def test_lengths_are_few_and_never_much_longer() -> None:
    front = front_end(max_tokens=512)
    lengths = {count: front.length(count) for count in range(1, 513)}
    assert len(set(lengths.values())) == 16
    assert all(count <= length <= max(count + 15, 1.25 * count) for count, length in lengths.items())
    assert (front.length(17), front.length(129), front_end(max_tokens=300).length(290)) == (32, 160, 300)


def test_buckets_of_the_file_are_taken_instead() -> None:
    front = front_end(batching={"buckets": {"sequence": [100, 20]}})
    assert [front.length(count) for count in (1, 20, 21, 101)] == [20, 20, 100, 101]
    assert front_end(batching={"buckets": {"sequence": 7}}).length(8) == 14


def test_a_graph_without_a_mask_gets_no_padding() -> None:
    front = front_end(("input_ids",))
    assert [front.length(count) for count in (1, 5, 17)] == [1, 5, 17]


def test_a_graph_of_one_length_gets_that() -> None:
    front = front_end(length=9)
    assert (front.max_tokens, front.length(2)) == (9, 9)
    assert front.feed([tokens(front, "the cat")])["input_ids"].shape == (1, 9)


def test_a_prefix_stands_before_every_text_and_counts() -> None:
    front = front_end(prefix="the cat: ")
    assert tokens(front, "a dog").ids.tolist() == tokenizer().encode("the cat: a dog").ids


@pytest.mark.parametrize("count", [3, 4, 10])
def test_a_text_that_is_cut_keeps_its_special_tokens(count: int) -> None:
    front = front_end(max_tokens=count)
    found = tokens(front, "the cat sat on the mat " * 9, truncate=True).ids.tolist()
    whole = tokenizer().encode("the cat sat on the mat " * 9).ids
    assert found == [*whole[: count - 1], whole[-1]]
    with pytest.raises(Rejected, match=r"has 56 tokens, and the model takes .*: cut it"):
        tokens(front, "the cat sat on the mat " * 9)


def test_a_text_may_be_as_long_as_the_model_takes() -> None:
    front = front_end(max_tokens=6)
    assert len(tokens(front, "the cat sat on")) == 6
    with pytest.raises(Rejected, match="has 7 tokens"):
        tokens(front, "the cat sat on a")


def test_a_text_without_tokens_is_refused() -> None:
    plain = tokenizer()
    plain.post_processor = None
    front = front_end(files={"tokenizer.json": plain.to_str()})
    with pytest.raises(Rejected, match="has no tokens"):
        tokens(front, " \t\n")


def test_what_the_tokenizer_cannot_read_is_refused() -> None:
    """A vocabulary without [UNK]."""
    built = tokenizer()
    built.model = models.WordPiece({"[CLS]": 2, "[SEP]": 3, "the": 4}, unk_token="[NONE]")
    front = front_end(files={"tokenizer.json": built.to_str()})
    assert tokens(front, "the").ids.tolist() == [2, 4, 3]
    with pytest.raises(Rejected, match="cannot be tokenised"):
        tokens(front, "cat")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sentence_bert_config.json": {"max_seq_length": 20}, "tokenizer_config.json": {"model_max_length": 30}}, 20),
        ({"tokenizer_config.json": {"model_max_length": 30}}, 30),
        ({"tokenizer_config.json": {"model_max_length": 10**30}, "sentence_bert_config.json": {}}, 40),
    ],
)
def test_the_length_is_what_the_files_say(files: dict[str, Any], expected: int) -> None:
    built = tokenizer()
    built.enable_truncation(40)
    texts = {name: json.dumps(content) for name, content in files.items()}
    assert front_end(files=texts | {"tokenizer.json": built.to_str()}, max_tokens=None).max_tokens == expected


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        ({}, {}, 0),
        ({"tokenizer_config.json": json.dumps({"pad_token": "[MASK]"})}, {}, 4),
        ({"tokenizer_config.json": json.dumps({"pad_token": {"content": "[SEP]"}})}, {}, 3),
        ({"tokenizer_config.json": json.dumps({"pad_token": "[MASK]"})}, {"pad_id": 9}, 9),
    ],
)
def test_padding_is_the_token_that_the_files_say(files: dict[str, str], text: dict[str, Any], expected: int) -> None:
    front = front_end(files=files, **text)
    assert front.feed([tokens(front, "a")])["input_ids"][0, -1] == expected


def test_padding_and_truncation_of_the_tokenizer_itself_are_not_done_twice() -> None:
    built = tokenizer()
    built.enable_truncation(4)
    built.enable_padding(length=8, pad_id=7)
    front = front_end(files={"tokenizer.json": built.to_str()})
    found = tokens(front, "the cat sat on a mat")
    assert len(found) == 8
    assert front.feed([found])["input_ids"][0, -1] == 7


def test_texts_are_put_into_lower_case_where_sentence_transformers_does() -> None:
    built = tokenizer()
    built.normalizer = None
    files = {"tokenizer.json": built.to_str(), "sentence_bert_config.json": json.dumps({"do_lower_case": True})}
    assert tokens(front_end(files=files), "The CAT").ids.tolist() == tokenizer().encode("the cat").ids
    unknown = tokens(front_end(files={"tokenizer.json": built.to_str()}), "The CAT").ids.tolist()
    assert unknown != tokenizer().encode("the cat").ids


@pytest.mark.parametrize("kind", ["tensor(float)", "tensor(string)"])
def test_ids_are_integers(kind: str) -> None:
    with pytest.raises(ValueError, match="text: input_ids is"):
        front_end(kind=kind)
