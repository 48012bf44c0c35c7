"""`millrace embed`, `classify` and `transcribe` on real models."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.models import bert
from tests.cli.running import Up, millrace
from tests.worker.tasks.sounds import MEL_SOUND, encoded, mel_graph, melody, write_sound_model
from tests.worker.tasks.texts import MAX_TOKENS, SHAPE, write_text_model

ROOT = Path(__file__).parents[2]
SEVEN = ROOT / "docs" / "seven.png"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models" / "digits", models / "digits")
    tones = write_sound_model(mel_graph(), {**MEL_SOUND, "window_s": 2.88, "overlap_s": 0.48}).folder
    shutil.copytree(tones.parent, models / "tones")
    texts = write_text_model(bert.build(SHAPE), "text-embedding", text={"max_tokens": MAX_TOKENS}).folder
    shutil.copytree(texts.parent, models / "texts")
    with Up("--models", str(models), "--device", "cpu") as fleet:
        yield fleet


async def run(up: Up, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    return await millrace(*arguments, "--address", up.addresses[0], stdin=stdin)


async def test_a_picture_is_labelled(up: Up) -> None:
    status, text, _ = await run(up, "classify", "-m", "digits", "--image", str(SEVEN), "--top-k", "2")
    assert status == 0
    best = next(line for line in text.splitlines() if "█" in line)
    assert best.split()[0] == "7"


async def test_labels_are_printed_as_json(up: Up) -> None:
    status, text, _ = await run(up, "classify", "-m", "digits", "--image", str(SEVEN), "--json", "-k", "0")
    labels = json.loads(text)
    assert (status, len(labels), labels[0]["name"]) == (0, 10, "7")


async def test_vectors_are_saved_and_printed(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "vectors.npy"
    status, text, _ = await run(up, "embed", "-m", "texts", "-", "-o", str(file), "--json", stdin="the cat\nthe dog\n")
    assert status == 0
    printed = [json.loads(line) for line in text.splitlines()]
    assert [line["text"] for line in printed] == ["the cat", "the dog"]
    np.testing.assert_allclose(np.load(file), [line["vector"] for line in printed], rtol=1e-6)


async def test_a_sound_is_transcribed_piece_by_piece(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "song.flac"
    file.write_bytes(encoded(melody("abcd" * 12), form="FLAC"))
    status, text, _ = await run(up, "transcribe", "-m", "tones", str(file))
    assert (status, text) == (0, "abcd" * 12 + "\n")
    status, text, _ = await run(up, "transcribe", "-m", "tones", str(file), "--times")
    assert status == 0
    assert len(text.splitlines()) > 2
    assert "".join(line.split()[2] for line in text.splitlines()) == "abcd" * 12


async def test_what_is_no_picture_is_said_with_its_option(up: Up, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    status, _, error = await run(up, "classify", "-m", "digits", "--image", str(tmp_path / "x.png"))
    assert status == 2
    assert error.startswith("image: ")
    status, _, error = await run(up, "classify", "-m", "digits", "--image", str(tmp_path / "none.png"))
    assert status == 2
    assert "No such file" in error


async def test_a_model_of_another_task_is_said_with_what_it_takes(up: Up) -> None:
    status, _, error = await run(up, "embed", "-m", "digits", "a")
    assert status == 1
    assert "it is called by ModelInfer or Classify" in error
