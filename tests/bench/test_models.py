"""The models that are measured are what they are said to be."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from bench import bare_generation, bare_tensors
from bench.bare_tensors import Feed
from bench.models import bert, echo, llama, repository, resnet
from millrace.engine import Work
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse, Sampling, Stopping, TokenIds
from services.worker import repository as models
from tests.models import Llama

BERT = bert.Bert(layers=2, hidden=32, heads=4, intermediate=64, vocabulary=100)
RESNET = resnet.ResNet(blocks=(1, 1, 1, 1), width=4, classes=10, size=32)
LLAMA = Llama(vocabulary_size=600, slots=3, context_length=64)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def texts() -> Feed:
    """Two of different lengths."""
    random = np.random.default_rng(1)
    mask = np.array([[1] * 9, [1] * 5 + [0] * 4])
    ids = random.integers(0, BERT.vocabulary, mask.shape) * mask
    return dict(zip(bert.INPUTS, (ids, mask, np.zeros_like(mask)), strict=True))


def pictures() -> Feed:
    return {resnet.INPUT: np.random.default_rng(1).standard_normal((2, 3, 32, 32), np.float32)}


def numbers() -> Feed:
    return {echo.INPUT: np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.mark.parametrize(
    ("model", "feed"),
    [(bert.build(BERT), texts()), (resnet.build(RESNET), pictures()), (echo.build(), numbers())],
    ids=["bert", "resnet", "echo"],
)
def test_rows_do_not_know_of_each_other(model: onnx.ModelProto, feed: Feed) -> None:
    opened = session(model)
    (together,) = opened.run(None, feed)
    for row in (0, 1):
        (alone,) = opened.run(None, {name: array[row : row + 1] for name, array in feed.items()})
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-5, atol=1e-6)
    assert not np.array_equal(together[0], together[1])


def test_a_sentence_is_normalised_and_blind_to_padding() -> None:
    opened, feed = session(bert.build(BERT)), texts()
    (padded,) = opened.run(None, feed)
    (short,) = opened.run(None, {name: array[1:, :5] for name, array in feed.items()})
    np.testing.assert_allclose(np.linalg.norm(padded, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(padded[1], short[0], rtol=1e-4, atol=1e-5)


def test_the_sizes_are_those_of_the_real_models() -> None:
    """all-MiniLM-L6-v2 has 22.7 million weights with the pooler, which sentence embeddings do without."""
    for model, millions in ((bert.build(bert.Bert()), 22.57), (resnet.build(resnet.ResNet()), 25.53)):
        weights = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
        assert weights / 1e6 == pytest.approx(millions, abs=0.01)


def test_a_written_model_is_served_in_batches(tmp_path: Path) -> None:
    repository.write(tmp_path, "echo", {"max_rows": 4, "sessions": 2})
    (found,), broken = models.scan(tmp_path)
    assert not broken
    engine = models.load(found, "cpu", 2)
    assert (engine.lanes, engine.signature.max_batch_size) == (2, 4)


def test_bare_sizes_are_measured_and_every_row_is_run(tmp_path: Path) -> None:
    feed = numbers()
    np.savez(tmp_path / "feed.npz", allow_pickle=False, **feed)
    bare = bare_tensors.Bare(
        model=str(repository.write(tmp_path, "echo")),
        feed=str(tmp_path / "feed.npz"),
        sessions=2,
        threads=1,
        rows=(1, 4),
        seconds=0.01,
        outputs=str(tmp_path / "outputs.npy"),
    )
    measured = bare_tensors.measure(bare)
    assert set(measured.rates) == {1, 4}
    assert min(measured.rates.values()) > 0
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npy"), feed[echo.INPUT])


def test_bare_generation_says_what_the_engine_says(tmp_path: Path) -> None:
    """More prompts than rows, so that rows move; the graph's head is pruned."""
    folder = llama.write(tmp_path, shape=LLAMA)
    prompts, tokens = [[5, 6, 7], [8], [9, 10], [11] * 20, [12, 13]], [4, 9, 2, 6, 5]
    bare = bare_generation.Bare(
        graph=str(folder / "model.onnx"),
        layers=LLAMA.layers,
        kv_heads=LLAMA.kv_heads,
        head_size=LLAMA.head_size,
        vocabulary=LLAMA.vocabulary_size,
        context=LLAMA.context_length,
        slots=LLAMA.slots,
        threads=1,
        prompts=prompts,
        tokens=tokens,
    )
    assert bare_generation.measure(bare).token_ids == [
        engine_says(tmp_path, prompt, count) for prompt, count in zip(prompts, tokens, strict=True)
    ]


def engine_says(folder: Path, prompt: list[int], tokens: int) -> list[int]:
    (found,), _ = models.scan(folder)
    engine = models.load(found, "cpu", 1)
    request = GenerateRequest(
        model="llama",
        tokens=TokenIds(ids=prompt),
        sampling=Sampling(temperature=0),
        stopping=Stopping(max_tokens=tokens, ignore_eos=True),
    )
    engine.add(Work(lease="a", job="a", request=request.SerializeToString()))
    found_ids: list[int] = []
    while (outputs := engine.step()) is not None:
        for output in outputs:
            assert isinstance(output.result, GenerateResponse)
            found_ids += [token_id for delta in output.result.deltas for token_id in delta.token_ids]
    return found_ids
