"""From TensorFlow to a served model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from millrace.exporting import environment
from tests.cli.running import Up, millrace
from tests.exporting.orders import described, exported, loaded

ENVIRONMENTS = Path(os.environ.get("MILLRACE_ENVIRONMENTS", "none")).absolute()
needs_tensorflow = pytest.mark.skipif(
    not environment.is_complete(ENVIRONMENTS), reason="needs TensorFlow's environment: `make frameworks` makes it"
)
MAKE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
keras.utils.set_random_seed(1)
pixels = keras.Input((8, 8, 1), name="pixels")
states = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(pixels))
scores = keras.layers.Dense(3, activation="softmax", name="scores")(states)
model = keras.Model(pixels, scores)
model.save("net.keras"); model.save("net.h5"); model.export("saved")
given = np.random.default_rng(1).random((6, 8, 8, 1), np.float32)
np.savez("given.npz", pixels=given); np.save("pixels.npy", given); np.save("scores.npy", model(given))
keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)]).save("code.keras")
"""
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small models, as Keras saves them."""
    folder = tmp_path_factory.mktemp("keras")
    python = environment.folder(ENVIRONMENTS) / "bin" / "python"
    subprocess.run([python, "-c", MAKE], cwd=folder, check=True, capture_output=True)
    return folder


@needs_tensorflow
@pytest.mark.parametrize("name", ["net.keras", "net.h5", "saved"])
def test_each_form_becomes_a_graph_that_the_worker_takes(made: Path, tmp_path: Path, name: str) -> None:
    published = exported(made / name, tmp_path / "models", environments=ENVIRONMENTS)
    assert {one.given for one in published.parity.comparisons} == {"1", "3", "8"}
    assert published.parity.relative < 1e-5
    signature = loaded(tmp_path / "models").signature
    assert [port.name for port in signature.inputs] == ["pixels"]
    assert [port.name for port in signature.outputs] == ["output_0" if name == "saved" else "scores"]
    assert signature.max_batch_size > 1


@needs_tensorflow
async def test_a_keras_model_is_served_and_says_what_keras_says(made: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    options = {"labels": tmp_path / "labels.txt", "samples": made / "given.npz", "environments": ENVIRONMENTS}
    published = exported(made / "net.keras", tmp_path / "models", name="net", **options)
    assert "samples, 6" in {one.given for one in published.parity.comparisons}
    assert described(published)["labels"] == {"scores": "labels.txt"}
    with Up("--models", str(tmp_path / "models"), "--device", "cpu") as up:
        given = ("infer", "-m", "net", "-i", f"pixels=@{made / 'pixels.npy'}", "--json", "--address", up.addresses[0])
        status, text, error = await millrace(*given)
    assert (status, error) == (0, "")
    found = json.loads(text)["outputs"]["scores"]["values"]
    np.testing.assert_allclose(found, np.load(made / "scores.npy"), atol=1e-5)


@needs_tensorflow
def test_code_in_a_model_is_not_run_unasked(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--trust-code"):
        exported(made / "code.keras", tmp_path / "models", environments=ENVIRONMENTS)
    assert list((tmp_path / "models").iterdir()) == []


@needs_tensorflow
def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.keras").write_text("no")
    with pytest.raises(ValueError, match=r"Keras cannot load no\.keras"):
        exported(tmp_path / "no.keras", tmp_path / "models", environments=ENVIRONMENTS)


def test_an_environment_is_of_its_requirements_and_complete_at_its_end(tmp_path: Path) -> None:
    folder = environment.folder(tmp_path)
    assert folder.parent == tmp_path
    folder.mkdir()
    assert not environment.is_complete(tmp_path)
    (folder / environment.COMPLETE).touch()
    assert environment.is_complete(tmp_path)
    assert environment.python(tmp_path, print) == folder / "bin" / "python"


def test_an_environment_that_cannot_be_installed_is_said_and_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match=r"TensorFlow's environment.*cannot be made"):
        environment.python(tmp_path / "environments", print)
    assert not environment.is_complete(tmp_path / "environments")
