"""Which typed requests a model takes is told by its model.yaml; tensors are taken as ever."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.models import bert
from millrace.errors import Code
from services.worker import repository
from services.worker.batch import BatchEngine
from tests.graphs import attention, write_graph
from tests.worker.batch.requests import answer as tensors
from tests.worker.batch.requests import request
from tests.worker.batch.requests import run as run_tensors
from tests.worker.tasks.sounds import MEL_SOUND, RATE, TONES, encoded, loudest_graph, mel_graph, write_sound_model
from tests.worker.tasks.test_text_classification import GRAPH
from tests.worker.tasks.texts import (
    MAX_TOKENS,
    SHAPE,
    classified,
    classify_work,
    embed_work,
    failure,
    text_engine,
    write_text_model,
)

MODELS = Path(__file__).parents[3] / "models"


def digits() -> BatchEngine:
    models, _ = repository.scan(MODELS)
    (model,) = (model for model in models if model.name == "digits")
    engine = repository.load(model, "cpu", threads=1)
    assert isinstance(engine, BatchEngine)
    return engine


@pytest.mark.parametrize("task", ["text-embedding", "text-generation", "tensor"])
def test_the_task_says_which_requests_are_taken(task: str) -> None:
    wanted = ("infer", "embed") if task == "text-embedding" else ("infer",)
    files = {"sentence_bert_config.json": f'{{"max_seq_length": {MAX_TOKENS}}}'}
    assert text_engine(bert.build(SHAPE), task, files, text=None).signature.tasks == wanted


@pytest.mark.parametrize("task", ["tensor", "text-similarity", "image-classification"])
def test_a_section_that_the_task_does_not_know_is_refused(task: str) -> None:
    with pytest.raises(ValueError, match=f"text: is for the tasks text-embedding, text-classification, .* is {task}"):
        text_engine(bert.build(SHAPE), task)


def test_texts_may_be_labelled() -> None:
    assert text_engine(GRAPH, "text-classification").signature.tasks == ("infer", "classify")


def test_a_model_without_model_yaml_takes_tensors_only(tmp_path: Path) -> None:
    write_graph(tmp_path, "plain", attention())
    (model,), _ = repository.scan(tmp_path)
    assert repository.load(model, "cpu", threads=1).signature.tasks == ("infer",)


def test_a_model_of_texts_without_a_tokenizer_takes_tensors_only() -> None:
    folder = write_text_model(bert.build(SHAPE), "text-embedding").folder
    (folder / "tokenizer.json").unlink()
    (model,), _ = repository.scan(folder.parents[1])
    assert repository.load(model, "cpu", threads=1).signature.tasks == ("infer",)


def test_a_model_of_images_without_a_section_takes_tensors_only() -> None:
    assert text_engine(bert.build(SHAPE), "image-classification", text=None).signature.tasks == ("infer",)


def test_sounds_become_transcripts() -> None:
    context = write_sound_model(mel_graph(), MEL_SOUND, task="speech-recognition")
    assert BatchEngine(context).signature.tasks == ("infer", "transcribe")


def test_sounds_get_labels_of_the_output_that_classes_names() -> None:
    output = {"output": "logits"}
    context = write_sound_model(
        loudest_graph(),
        {**MEL_SOUND, "layout": "mels-frames"},
        task="audio-classification",
        output="logits",
        symbols=tuple(TONES),
    )
    context = replace(context, config=context.config | ({"classes": output | {"scores": "sigmoid"}}))
    engine = BatchEngine(context)
    assert engine.signature.tasks == ("infer", "classify")
    tone = np.sin(2 * np.pi * TONES["c"] * np.arange(RATE) / RATE)
    found = classified(engine, classify_work(audio=encoded(0.3 * tone)))
    assert next(iter(found)) == "c"
    assert found.keys() == TONES.keys()
    wrong = replace(context, config=context.config | {"classes": {"output": "nothing"}})
    with pytest.raises(ValueError, match=r"classes\.output: name one of the graph's"):
        BatchEngine(wrong)


def test_a_request_that_a_model_does_not_take_is_refused() -> None:
    refused = failure(text_engine(GRAPH, "text-classification"), embed_work("a", ["the cat"]))
    assert refused.code == Code.INVALID_ARGUMENT
    assert refused.message == "the model takes classify, infer, not embed"


@pytest.mark.parametrize("scale", [1, 9])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_held_out_digits_are_read_from_pictures_as_from_tensors(form: str, scale: int) -> None:
    """Ink on paper, of the data's size or larger. JPEG of 8 × 8 pixels blurs what larger pictures keep."""
    engine, held_out = digits(), np.load(MODELS / "digits" / "held_out.npz")
    right = 0
    for image, label in zip(held_out["x"][:40, 0], held_out["label"][:40], strict=True):
        paper = np.round(255 - image * 255.0 / 16).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(np.kron(paper, np.ones((scale, scale), np.uint8))).save(file, form, quality=95)
        found = classified(engine, classify_work(image=file.getvalue()))
        assert list(found.values()) == sorted(found.values(), reverse=True)
        right += next(iter(found)) == str(label)
    assert right >= 39


def test_a_digit_as_a_picture_scores_what_it_scores_as_a_tensor() -> None:
    engine, held_out = digits(), np.load(MODELS / "digits" / "held_out.npz")
    paper = np.round(255 - held_out["x"][7, 0] * 255.0 / 16).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(paper).save(file, "PNG")
    ink = (255 - paper.astype(np.float32)) * 16 / 255
    row = tensors(run_tensors(engine, {"a": request(x=ink[None, None])})["a"])["probabilities"][0]
    found = classified(engine, classify_work(image=file.getvalue()))
    assert [found[str(digit)] for digit in range(10)] == pytest.approx(row.tolist(), abs=1e-5)


def test_a_text_for_a_model_of_images_is_refused() -> None:
    refused = failure(digits(), classify_work(text="seven"))
    assert (refused.code, refused.field) == (Code.INVALID_ARGUMENT, "input")


def test_typed_requests_may_warm_a_model_up() -> None:
    engine = text_engine(GRAPH, "text-classification", warmup=[{"classify": {"text": "the cat"}}])
    assert engine.counters()["batches"] == 1
    with pytest.raises(ValueError, match=r"warmup\[0\]: texts\[0\]: has 62 tokens"):
        text_engine(bert.build(SHAPE), "text-embedding", warmup=[{"embed": {"texts": ["the cat " * 30]}}])


def test_the_model_file_that_the_example_writes_is_the_one_that_is_served() -> None:
    source = (MODELS.parent / "examples" / "image" / "export.py").read_text()
    written = (MODELS / "digits" / "1" / "model.yaml").read_text()
    assert f'MODEL_YAML = """\\\n{written}"""' in source
