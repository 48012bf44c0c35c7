"""Which framework a source is of."""

from pathlib import Path

import pytest

from millrace.exporting import trust
from millrace.exporting.sources import choose, recognise
from tests.exporting.orders import order, write_function


def test_a_source_is_known_by_what_lies_there(tmp_path: Path) -> None:
    for file in ("a.pt2", "b.keras", "c.h5", "d.joblib", "transformers/config.json", "saved/saved_model.pb"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    kinds = {name: recognise(str(tmp_path / name)) for name in ("a.pt2", "b.keras", "c.h5", "d.joblib")}
    assert kinds == {"a.pt2": "torch", "b.keras": "tensorflow", "c.h5": "tensorflow", "d.joblib": "sklearn"}
    assert recognise(str(tmp_path / "transformers")) == "huggingface"
    assert recognise(str(tmp_path / "saved")) == "tensorflow"
    assert recognise("package.module:function") == "function"
    assert recognise("file.py:function") == "function"
    assert recognise("owner/name") == "huggingface"


@pytest.mark.parametrize("name", ["weights.pt", "checkpoint.pth", "pytorch_model.bin"])
def test_a_file_of_weights_alone_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(ValueError, match="weights_only=True"):
        recognise(name)


@pytest.mark.parametrize("source", ["./none", "/no/such/folder", "none.keras", "a/b/c"])
def test_what_is_not_there_is_said(source: str) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        recognise(source)


def test_a_folder_of_nothing_known_is_refused_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known are a folder of transformers"):
        recognise(str(tmp_path))


def test_a_kind_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--kind caffe is not one of"):
        choose(order("x", tmp_path, kind="caffe"))


def test_a_function_that_is_not_there_is_said(tmp_path: Path) -> None:
    source = write_function(tmp_path, "return 1")
    for wrong, words in ((f"{source}s", "has no function models"), ("no.such:model", "no module no.such")):
        with pytest.raises(ValueError, match=words):
            choose(order(wrong, tmp_path)).plan(order(wrong, tmp_path))


def test_a_pickle_is_read_only_for_those_who_trust_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--trust-pickle"):
        trust.need_trusted_pickle(order("model.pkl", tmp_path))
    trust.need_trusted_pickle(order("model.pkl", tmp_path, trust_pickle=True))


def test_a_card_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert trust.told(str(tmp_path / "model")) == "model"
    assert trust.told(f"{tmp_path}/train.py:network") == "train.py:network"
    assert trust.told("owner/name") == "owner/name"


def test_a_link_out_of_the_folder_is_not_copied(tmp_path: Path) -> None:
    folder, store = tmp_path / "hub" / "snapshots" / "c0ffee", tmp_path / "hub" / "blobs"
    for path in (folder, store):
        path.mkdir(parents=True)
    (store / "blob").touch()
    (tmp_path / "secret").touch()
    (folder / "tokenizer.json").symlink_to(store / "blob")
    (folder / "stolen.json").symlink_to(tmp_path / "secret")
    trust.need_inside(folder / "tokenizer.json", folder)
    with pytest.raises(ValueError, match="leads out of"):
        trust.need_inside(folder / "stolen.json", folder)
