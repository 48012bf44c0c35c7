"""A step's time, and where it goes."""

from dataclasses import replace
from pathlib import Path

import onnxruntime as ort
import pytest

from bench.generation import overhead, workloads
from bench.generation.overhead import Steps
from bench.generation.settings import Settings
from bench.models import llama
from tests.models import Llama

SHAPE = Llama(vocabulary_size=600, slots=3, context_length=64)


def spec(folder: Path, tokens: int) -> Steps:
    llama.write(folder, "llama", SHAPE)
    settings = Settings(requests=3, prompt_tokens=4, output_tokens=(tokens, tokens))
    _, *messages = workloads.messages(workloads.closed(settings, SHAPE.vocabulary_size, 0), "llama")
    return Steps(models=str(folder), requests=[one.hex() for one in messages], steps=5, threads=1)


def test_model_sampler_and_the_rest_make_up_a_step(tmp_path: Path) -> None:
    session = ort.InferenceSession
    measured = overhead.measure(spec(tmp_path, 20))
    assert len(measured.step_ms) == len(measured.results_ms) == 5
    assert all(model > 0 for model in measured.model_ms)
    assert all(sampler > 0 for sampler in measured.sampler_ms)
    assert 0 < measured.sampler_share < measured.share < 1
    assert ort.InferenceSession is session


def test_a_text_that_ends_before_the_last_step_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too early"):
        overhead.measure(replace(spec(tmp_path, 20), steps=30))
