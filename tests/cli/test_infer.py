"""`millrace infer` on a real model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from millrace.cli.arrays import load, parse, save
from millrace.client.tensors import DTYPES
from millrace.errors import InvalidRequest
from tests.cli.running import Up, millrace
from tests.stub_models import write_stub

MODEL = Path(__file__).parent.parent.parent / "models" / "digits"
HELD_OUT = np.load(MODEL / "held_out.npz")
IMAGES, LABELS = HELD_OUT["x"][:3].astype(np.float32), HELD_OUT["label"][:3].tolist()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(MODEL, models / "digits")
    write_stub(models)
    with Up("--models", str(models), "--device", "cpu") as fleet:
        yield fleet


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", IMAGES)
    return tmp_path / "images.npy"


async def infer(up: Up, *options: str, model: str = "digits") -> tuple[int, str, str]:
    return await millrace("infer", "-m", model, *options, "--address", up.addresses[0])


async def test_outputs_are_printed_and_saved(up: Up, images: Path, tmp_path: Path) -> None:
    saved = tmp_path / "p.npy"
    status, text, stats = await infer(up, "-i", f"x=@{images}", "-o", f"probabilities=@{saved}", "--stats")
    assert status == 0
    assert "probabilities  FP32 [3, 10]" in text
    assert "label  INT64 [3]\n[7 6 3]\n" in text
    assert "768 bytes in, 144 bytes out" in stats
    assert np.load(saved).argmax(axis=1).tolist() == LABELS


async def test_json_goes_in_and_comes_out(up: Up) -> None:
    status, text, _ = await infer(up, "-i", f"x={json.dumps(IMAGES.astype(int).tolist())}", "--json")
    assert status == 0
    answer = json.loads(text)
    assert (answer["model"], list(answer["outputs"])) == ("digits", ["probabilities", "label"])
    assert answer["outputs"]["label"] == {"datatype": "INT64", "shape": [3], "values": LABELS}


async def test_a_file_without_a_batch_or_of_another_dtype_is_said_with_what_to_do(up: Up, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", HELD_OUT["x"][0])
    status, _, error = await infer(up, "-i", f"x=@{tmp_path / 'one.npy'}")
    assert status == 2
    assert "inputs[0].datatype: x takes FP32, not UINT8" in error
    assert "x lacks the batch dimension: save array[numpy.newaxis], for the shape [1, 1, 8, 8]" in error
    assert "save array.astype(numpy.float32)" in error


async def test_a_dtype_that_no_model_takes_is_said_with_what_to_do(up: Up, tmp_path: Path) -> None:
    np.save(tmp_path / "complex.npy", IMAGES + 1j)
    status, _, error = await infer(up, "-i", f"x=@{tmp_path / 'complex.npy'}")
    assert status == 2
    assert "inputs.x: arrays of complex64 cannot be sent" in error
    assert "save array.astype(numpy.float32)" in error


async def test_json_without_a_batch_is_said_too(up: Up) -> None:
    status, _, error = await infer(up, "-i", f"x={json.dumps(IMAGES[0].tolist())}")
    assert status == 2
    assert "x takes [-1, 1, 8, 8], not [1, 8, 8]" in error
    assert "write one more pair of []" in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-i", "x"], "--input: 'x' must be NAME=VALUE, as in x=@images.npy"),
        (["-i", "x=[1]", "-i", "x=[2]"], "--input: x is there twice"),
        (["-i", "y=[1]"], "there is no 'y'; the model takes x"),
        (["-i", "x=[1", "-o", "label=l.npy"], "neither @FILE nor JSON"),
        (["-i", "x=[1]", "-o", "nothing=p.npy"], "there is no 'nothing'; the model gives probabilities, label"),
        (["-i", "x=[1]", "-o", "label=no/folder/l.npy"], "--output label: there is no folder no/folder"),
        (["-i", "x=@nothing.npy"], "--input x: nothing.npy cannot be read"),
    ],
)
async def test_a_command_line_that_is_wrong_says_what_would_be_right(up: Up, options: list[str], words: str) -> None:
    status, _, error = await infer(up, *options)
    assert status == 2
    assert words in error


async def test_a_model_that_is_not_there_or_takes_no_tensors_is_said_with_what_to_do(up: Up) -> None:
    status, _, error = await infer(up, "-i", "x=[1]", model="nothing")
    assert status == 1
    assert "NOT_FOUND MODEL_UNKNOWN" in error
    assert "`millrace models` lists" in error
    status, _, error = await infer(up, "-i", "x=[1]", model="stub")
    assert status == 2
    assert "`millrace generate -m stub` calls it" in error
    status, _, error = await millrace("generate", "-m", "digits", "-p", "x", "--address", up.addresses[0])
    assert status == 1
    assert "infer takes tensors" in error


async def test_help_shows_how_it_is_used() -> None:
    status, text, _ = await millrace("infer", "--help")
    assert status == 0
    assert "millrace infer -m digits -i x=@images.npy" in text
    assert """-i town='[["Ulm"], ["Jena"]]' --json""" in text


@pytest.mark.parametrize(
    ("datatype", "text", "values"),
    [
        ("FP32", "[[1, 2.5]]", [[1, 2.5]]),
        ("UINT8", "[0, 255, 3.0]", [0, 255, 3]),
        ("INT64", "[]", []),
        ("UINT64", "[18446744073709551615]", [2**64 - 1]),
        ("BOOL", "[true, false]", [True, False]),
        ("BYTES", '[["a", "ä"]]', [["a", "ä"]]),
        ("FP16", "0.5", 0.5),
    ],
)
def test_json_becomes_what_the_model_takes(datatype: str, text: str, values: object) -> None:
    array = parse("x", text, datatype)
    assert array.tolist() == values
    assert array.dtype == DTYPES.get(datatype, np.object_)


@pytest.mark.parametrize(
    ("datatype", "text", "words"),
    [
        ("UINT8", "[256]", "256 does not fit"),
        ("UINT8", "[-1]", "-1 does not fit"),
        ("INT32", "[1.5]", "1.5 does not fit"),
        ("INT32", "[NaN]", "nan does not fit"),
        ("FP32", '["1"]', "must hold numbers"),
        ("FP32", "[null]", "must hold numbers"),
        ("FP32", "{}", "must hold numbers"),
        ("BOOL", "[1]", "must hold true or false"),
        ("FP32", "[[1], [1, 2]]", "equal lengths"),
        ("BYTES", '[["a"], []]', "equal lengths"),
        ("BYTES", "[1]", "must hold texts"),
        ("BF16", "[1]", "use @FILE"),
    ],
)
def test_json_that_the_model_cannot_take_is_refused(datatype: str, text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        parse("x", text, datatype)
    assert [violation.field for violation in caught.value.violations] == ["--input x"]


def test_files_that_hold_no_array_are_told_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "many.npz", x=IMAGES)
    np.save(tmp_path / "objects.npy", np.array(["a", None], np.object_), allow_pickle=True)
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "short.npy").write_bytes((tmp_path / "objects.npy").read_bytes()[:20])
    words = {
        "many.npz": "archive of arrays",
        "objects.npy": "no plain array",
        "short.npy": "no plain array",
        "text.npy": "not a .npy file",
        "none.npy": "cannot be read",
        ".": "cannot be read",
    }
    for name, expected in words.items():
        with pytest.raises(InvalidRequest, match=expected):
            load("x", tmp_path / name)


def test_texts_are_saved_so_that_they_can_be_loaded(tmp_path: Path) -> None:
    save("z", np.array([b"a", "ä".encode()], np.object_), tmp_path / "z.npy")
    assert load("z", tmp_path / "z.npy").tolist() == [b"a", "ä".encode()]
