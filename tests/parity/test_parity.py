"""What the engine says of an exported model is what transformers says of the original."""

import functools
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from services.worker import repository
from services.worker.generation import GenerationEngine
from services.worker.generation.decoder import Chunk
from services.worker.generation.decoders import open_decoder
from tests.models import tokenizer
from tests.parity import exports, originals
from tests.parity.families import FAMILIES, WINDOW
from tests.parity.originals import Original
from tests.worker.generation.jobs import request, run
from tests.worker.steps import leased

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None, reason="needs torch: `make parity` has an environment with it"
    ),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]
PROMPTS = (
    "x",
    "the stop, the end",
    "a bélier — naïve 数据 🙂🙂",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich; the rest is the same.",
)
TOKENS = 32
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A model as it was, and its folder in a repository."""

    original: Original
    folder: Path


@functools.cache
def pair(family: str) -> Pair:
    scratch, name = Path(tempfile.mkdtemp()), family.replace(" ", "-")
    original = originals.write(FAMILIES[family], scratch / "original")
    folder = scratch / "models" / name / "1"
    folder.mkdir(parents=True)
    exports.export(FAMILIES[family], scratch / "original", folder, name)
    return Pair(original, folder)


@functools.cache
def engine(family: str) -> GenerationEngine:
    (model,), broken = repository.scan(pair(family).folder.parents[1])
    assert not broken
    loaded = repository.load(model, "cpu", threads=1)
    assert isinstance(loaded, GenerationEngine)
    return loaded


def encoded(text: str) -> list[int]:
    return [int(token_id) for token_id in tokenizer().encode(text).ids]


def served_logits(family: str, token_ids: list[int]) -> npt.NDArray[np.float32]:
    """What the engine's decoder computes: [tokens, vocabulary]."""
    settings = engine(family).config
    decoder, longest, found = open_decoder(settings, device="cpu", threads=1), settings.prefill_chunk_tokens, []
    decoder.open(0, np.array([], np.int64))
    for start in range(0, len(token_ids), longest):
        piece = np.array(token_ids[start : start + longest], np.int64)
        decoder.run_all(Chunk(0, piece, start, wanted=True))
        found.append(np.array(decoder.chunk_logits.owner[: len(piece), 0]))
    return np.concatenate(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_originals_at_each_position(family: str) -> None:
    original = pair(family).original
    for prompt in PROMPTS:
        token_ids = encoded(prompt)
        token_ids += original.generate(token_ids, TOKENS)
        expected = original.logits(token_ids)
        np.testing.assert_allclose(served_logits(family, token_ids), expected, rtol=0, atol=TOLERANCE)
        assert expected.std() > 100 * TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_is_the_originals(family: str) -> None:
    """All prompts at once, in chunks of 16 tokens."""
    original, kinds = pair(family).original, set[int]()
    ran = run(engine(family), [leased(prompt, request(prompt, max_tokens=TOKENS)) for prompt in PROMPTS])
    for prompt in PROMPTS:
        expected = original.generate(encoded(prompt), TOKENS)
        assert ran[prompt].token_ids == expected
        assert ran[prompt].text == tokenizer().decode(expected)
        kinds.update(expected)
    assert len(kinds) > 2 * len(PROMPTS)


def test_a_prompt_is_longer_than_the_windows() -> None:
    assert len(encoded(PROMPTS[-1])) > 2 * WINDOW
