"""pycode: the corpus, the measures, and the model in the repository."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from examples.text import baseline, data, evaluate, tokenizer
from examples.text.data import Document
from examples.text.evaluate import Graph, Score
from examples.text.tokenizer import SEPARATOR_ID, VOCABULARY_SIZE, Tokens

SHIPPED = Path(__file__).parents[2] / "models" / "pycode" / "1"
HELD_OUT_FILE = "pdb.py"
SHIPPED_BYTES_LIMIT = 12_000_000


def documents(*texts: str) -> tuple[Document, ...]:
    return tuple(Document(path=f"{index}.py", text=text) for index, text in enumerate(texts))


def random_stream(length: int, vocabulary: int, seed: int = 3) -> Tokens:
    return np.random.default_rng(seed).integers(0, vocabulary, length)


@functools.cache
def small_tokenizer() -> Tokenizer:
    return tokenizer.learn(
        documents("def first(x):\n    return x\n" * 20, "for y in range(10):\n    print(y)\n"), size=300
    )


@functools.cache
def shipped_graph() -> Graph:
    return Graph(SHIPPED)


@functools.cache
def held_out_stream(tokens: int) -> Tokens:
    text = (data.standard_library() / HELD_OUT_FILE).read_text(encoding="utf-8")
    return tokenizer.encode(tokenizer.load(SHIPPED), documents(text))[:tokens]


def test_the_corpus_leaves_out_tests_installed_packages_and_generated_tables(tmp_path: Path) -> None:
    kept = ["ast.py", "encodings/aliases.py", "json/decoder.py"]
    dropped = ["test/test_ast.py", "idlelib/idle_test/x.py", "site-packages/a.py", "encodings/cp1252.py", "README.txt"]
    for path in [*kept, *dropped, "pydoc_data/topics.py", "_sysconfigdata_x.py"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x = 1\n")
    assert data.source_paths(tmp_path) == kept


def test_files_that_are_empty_or_not_utf_8_are_left_out_and_line_ends_are_unified(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_bytes(b"\n")
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "windows.py").write_bytes(b"a\r\nb\r\n")
    assert list(data.read_documents(tmp_path)) == [Document(path="windows.py", text="a\nb\n")]


def test_the_halves_of_the_standard_library_are_disjoint_and_the_same_each_time() -> None:
    paths = data.source_paths(data.standard_library())
    held_out = {path for path in paths if data.is_held_out(path)}
    assert paths == data.source_paths(data.standard_library())
    assert HELD_OUT_FILE in held_out
    assert 0.02 < len(held_out) / len(paths) < 0.08


def test_an_empty_library_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no Python source"):
        data.read_corpus(tmp_path)


def test_text_survives_encoding_with_and_without_cuts() -> None:
    words = small_tokenizer()
    text = "def g(é):\n\treturn '☃'  \n\n" * 30
    for stream in (
        tokenizer.encode(words, documents(text)),
        tokenizer.encode_with_cuts(words, documents(text), seed=1),
    ):
        assert stream[0] == SEPARATOR_ID
        assert words.decode(list(stream[1:])) == text
        assert tokenizer.token_bytes(words)[stream].sum() == len(text.encode())


def test_cuts_depend_on_the_seed_alone() -> None:
    words, texts = small_tokenizer(), documents("def first(x):\n    return x\n" * 50)
    first, again, other = (tokenizer.encode_with_cuts(words, texts, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_perplexity_and_bits_per_byte_of_a_uniform_guess() -> None:
    score = Score(nats=10 * math.log(256), tokens=10, text_bytes=20)
    assert score.perplexity == pytest.approx(256)
    assert score.bits_per_byte == pytest.approx(4)


def test_a_score_counts_the_bytes_of_the_predicted_tokens_only() -> None:
    score = evaluate.score(np.array([1.0, 2.0]), np.array([2, 1, 0]), token_bytes=np.array([0, 3, 100]))
    assert (score.nats, score.tokens, score.text_bytes) == (3.0, 2, 3)


@pytest.mark.parametrize("history", [(1, 2), (3, 3), (6, 0), (0, 6)])
def test_the_trigram_is_a_distribution_after_every_history(history: tuple[int, int]) -> None:
    vocabulary = 8
    trigram = baseline.fit(random_stream(400, vocabulary=7), vocabulary)
    first, second = (np.full(vocabulary, token) for token in history)
    probabilities = trigram.probabilities(first, second, np.arange(vocabulary))
    assert probabilities.sum() == pytest.approx(1)
    assert (probabilities > 0).all()


def test_the_trigram_learns_a_repeated_text() -> None:
    trigram = baseline.fit(np.tile(np.arange(5), 200), 5)
    assert np.exp(trigram.nats(np.tile(np.arange(5), 10))[2:].mean()) < 1.1


def test_the_shipped_folder_is_complete_and_small() -> None:
    names = {path.name for path in SHIPPED.iterdir()}
    assert {"genai_config.json", "model.onnx", "model.yaml", "tokenizer.json", "tokenizer_config.json"} <= names
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= SHIPPED_BYTES_LIMIT


def test_the_shipped_graph_speaks_the_cache_dialect_of_the_worker() -> None:
    session = shipped_graph().session
    inputs = {value.name: value.type for value in session.get_inputs()}
    past = {f"past_key_values.{layer}.{part}" for layer in range((len(inputs) - 2) // 2) for part in ("key", "value")}
    assert set(inputs) == {"input_ids", "attention_mask"} | past
    assert {inputs[name] for name in past} == {"tensor(float)"}
    assert [value.name for value in session.get_outputs()] == [
        "logits",
        *(name.replace("past_key_values", "present") for name in shipped_graph().past_names),
    ]


def test_rows_of_a_batch_do_not_disturb_each_other_and_the_cache_changes_nothing() -> None:
    rows = held_out_stream(96).reshape(3, 32)
    together, _ = shipped_graph().run(rows)
    alone, _ = shipped_graph().run(rows[1:2])
    assert together.shape == (3, 32, VOCABULARY_SIZE)
    np.testing.assert_allclose(together[1], alone[0], atol=1e-4)
    _, past = shipped_graph().run(rows[:, :31])
    last, _ = shipped_graph().run(rows[:, 31:], past)
    np.testing.assert_allclose(last[:, 0], together[:, -1], atol=1e-3)


def test_the_shipped_graph_predicts_a_held_out_file_better_than_the_trigram() -> None:
    words, stream = tokenizer.load(SHIPPED), held_out_stream(4097)
    lengths = tokenizer.token_bytes(words)
    train = tokenizer.encode(words, data.read_corpus().train)
    trigram = evaluate.score(baseline.fit(train, VOCABULARY_SIZE).nats(stream), stream, lengths)
    graph = evaluate.score(shipped_graph().costs(stream), stream, lengths)
    assert graph.perplexity < 0.75 * trigram.perplexity
    assert graph.bits_per_byte < 0.92 * trigram.bits_per_byte


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    pytest.importorskip("torch")
    from examples.text.train import Recipe

    recipe = Recipe(steps=1000, warmup_steps=10, decay_fraction=0.5)
    assert [recipe.rate(step) for step in (0, 9, 400, 500, 750, 1000)] == [0.1, 1.0, 1.0, 1.0, 0.5, 0.0]
    assert (recipe.window(0), recipe.window(999)) == (recipe.short_window, recipe.long_window)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    pytest.importorskip("torch")
    from examples.text.train import Recipe, batch

    recipe, stream = Recipe(step_tokens=64, short_window=16), random_stream(500, vocabulary=9)
    assert batch(stream, recipe, 3).tolist() == batch(stream, recipe, 3).tolist()
    assert batch(stream, recipe, 3).tolist() != batch(stream, recipe, 4).tolist()
    assert batch(stream, recipe, 3).shape == (4, 17)
