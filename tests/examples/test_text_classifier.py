"""origin: the snippets and how they are split, the measures, the training, and the export."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from examples.text.classifier import data, evaluate, tokens
from examples.text.classifier.data import LABELS, Part, Snippet
from examples.text.classifier.tokens import Encoded
from examples.text.data import Document
from millrace.exporting.stages import Stages

SOURCE = '''\
import asyncio


@decorated
def first(x):
    """Of asyncio, not of Email or an asyncio_like."""
    y = asyncio.run(x)
    return y


class Kept:
    def method(self):
        def inner():
            a = 1
            b = 2
            return a + b

        return inner


def short(x):
    return x
'''


def snippet(text: str, label: str = "xml") -> Snippet:
    return Snippet(path=f"{label}/a.py", label=label, text=text)


def random_snippets(count: int = 40, seed: int = 3) -> Encoded:
    """Each label has tokens of its own."""
    random = np.random.default_rng(seed)
    labels = [index % len(LABELS) for index in range(count)]
    ids = [random.integers(20 * label + 1, 20 * label + 20, random.integers(5, 30)).tolist() for label in labels]
    return Encoded(ids=ids, labels=labels)


@pytest.fixture
def torch_is_here() -> None:
    pytest.importorskip("torch")


def test_snippets_are_outermost_functions_with_their_decorators_and_without_their_packages_names() -> None:
    first, method = data.functions(Document(path="asyncio/a.py", text=SOURCE), "asyncio")
    assert first.text.splitlines()[:3] == [
        "@decorated",
        "def first(x):",
        '    """Of package, not of package or an asyncio_like."""',
    ]
    assert "package.run" in first.text
    assert method.text.startswith("def method(self):\n    def inner():\n")
    assert {first.label, method.label} == {"asyncio"}


def test_files_are_held_out_up_to_a_part_s_share_and_the_same_each_time() -> None:
    counts = {f"xml/{index}.py": 10 for index in range(20)} | {"xml/large.py": 200}
    found = data.split(counts)
    assert found == data.split(dict(reversed(counts.items())))
    assert found["xml/large.py"] is Part.TRAIN
    snippets = {part: sum(counts[path] for path in counts if found[path] is part) for part in Part}
    assert snippets == {Part.HELD_OUT: 80, Part.VALIDATION: 40, Part.TRAIN: 280}


def test_what_is_trained_on_is_not_asked_for_later() -> None:
    found = data.distinct(
        {
            Part.HELD_OUT: [snippet("def f(): pass"), snippet("def h(): pass")],
            Part.VALIDATION: [snippet("def g(): pass"), snippet("def g():\n  pass")],
            Part.TRAIN: [snippet("def f():\n    pass")],
        }
    )
    assert {part: len(snippets) for part, snippets in found.items()} == {
        Part.TRAIN: 1,
        Part.VALIDATION: 1,
        Part.HELD_OUT: 1,
    }


def test_no_file_of_the_standard_library_is_in_two_parts_and_every_label_in_each() -> None:
    snippets = data.read()
    files = [{one.path for one in snippets[part]} for part in Part]
    assert len(set.union(*files)) == sum(map(len, files))
    assert all({one.label for one in snippets[part]} == set(LABELS) for part in Part)
    assert len(snippets[Part.TRAIN]) > 2_000
    assert 0.1 < len(snippets[Part.HELD_OUT]) / len(snippets[Part.TRAIN]) < 0.4
    assert not any(data.NAMES.search(one.text) for part in Part for one in snippets[part])


def test_a_library_without_a_package_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "asyncio").mkdir()
    (tmp_path / "asyncio" / "a.py").write_text(SOURCE)
    with pytest.raises(FileNotFoundError, match="too little of asyncio for validation, held_out"):
        data.read(tmp_path)


def test_snippets_survive_being_written(tmp_path: Path) -> None:
    rows = [snippet("def f():\n    return 'é\u2028☃'", "email"), snippet("x")]
    data.write(rows, tmp_path / "rows.jsonl")
    assert data.load(tmp_path / "rows.jsonl") == [(one.text, one.label) for one in rows]
    with pytest.raises(FileNotFoundError, match="nothing is prepared"):
        data.load(tmp_path / "none.jsonl")


def test_labels_are_encoded_by_their_place() -> None:
    words = tokens.learn(["def first(x):\n    return x\n"] * 20)
    found = tokens.encode(words, [("def first(x):", "xml"), ("", "asyncio")])
    assert found.labels == [LABELS.index("xml"), LABELS.index("asyncio")]
    assert words.decode(found.ids[0]) == "def first(x):"


def test_a_score_has_the_mean_f1_over_all_labels_and_rows_of_what_is_right() -> None:
    pytest.importorskip("sklearn")
    right = [0, 0, 1, 1, 2, 3, 4, 5, 6, 7]
    found = evaluate.score([0, 1, 1, 1, 2, 3, 4, 5, 6, 0], right)
    assert found.accuracy == pytest.approx(0.8)
    assert found.f1 == pytest.approx((0.5 + 0.8 + 5 + 0) / 8)
    assert (found.confusion[0][:2], found.confusion[7][0]) == ([1, 1], 1)


def test_the_baseline_learns_what_tokens_tell() -> None:
    pytest.importorskip("sklearn")
    known, others = random_snippets(), random_snippets(seed=5)
    assert evaluate.score(evaluate.baseline(known, others), others.labels).accuracy == 1


def small_recipe(steps: int = 4) -> Any:
    from examples.training.loop import Recipe

    return Recipe(steps=steps, batch=8, warmup_steps=2, peak_rate=1e-3, weight_decay=0.1, curve_every=2)


def trained(work: Path, plan: Any, *, processes: int = 1, resume: bool = False) -> dict[str, Any]:
    """The weights that training on random snippets gives."""
    import torch

    from examples.text.classifier import train
    from examples.training import processes as training

    given = (random_snippets(), random_snippets(8, seed=4), plan, work, resume, 0)
    training.run(train.train, processes, processes, *given)
    weights: dict[str, Any] = torch.load(work / "weights.pt", weights_only=True)
    return weights


@pytest.mark.usefixtures("torch_is_here")
def test_a_row_is_a_window_of_its_snippet_with_some_tokens_hidden() -> None:
    from examples.text.classifier.train import augmented
    from examples.text.tokenizer import SEPARATOR_ID

    ids = list(range(1, 101))
    first, again, other = (augmented(ids, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other
    kept = [token for token in first if token != SEPARATOR_ID]
    assert 0 < len(kept) < len(first) <= 100
    assert max(kept) - min(kept) < len(first)
    assert kept == sorted(kept)


@pytest.mark.usefixtures("torch_is_here")
def test_padding_changes_no_logit() -> None:
    import torch

    from examples.text.classifier.model import Network
    from examples.text.classifier.train import to_rows

    torch.manual_seed(1)
    network, ids = Network().eval(), [[5, 6, 7], list(range(1, tokens.MOST_TOKENS + 9))]
    together, alone = to_rows(ids, [0, 0]), to_rows(ids[:1], [0])
    assert together.ids.shape == (2, tokens.MOST_TOKENS)
    with torch.inference_mode():
        logits = network(together.ids, together.mask)[:1]
        torch.testing.assert_close(logits, network(alone.ids, alone.mask), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("torch_is_here")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    import torch

    one, two = (trained(tmp_path / str(count), small_recipe(3), processes=count) for count in (1, 2))
    assert all(torch.allclose(one[name], two[name], atol=2e-3) for name in one)


@pytest.mark.usefixtures("torch_is_here")
def test_a_training_that_was_killed_and_resumed_gives_the_weights_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from examples.text.classifier.train import Naming

    whole, draw = trained(tmp_path / "whole", small_recipe()), Naming.batch

    def killed(task: Naming, step: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return draw(task, step)

    with monkeypatch.context() as patch:
        patch.setattr(Naming, "batch", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed", small_recipe())
    resumed = trained(tmp_path / "killed", small_recipe(), resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("torch_is_here")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_graph_takes_any_length_and_is_published_with_its_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    import torch

    from examples.text.classifier import export
    from examples.text.classifier.model import Network

    torch.manual_seed(1)
    folder, words = tmp_path / "origin" / "1", tmp_path / "tokenizer.json"
    tokens.learn(["def first(x):\n    return x\n"] * 20).save(str(words))
    made = export.ship(Network(), words, random_snippets(), tmp_path, folder, Stages(Console(quiet=True)))
    assert made.accepted
    files = {"model.onnx", "model.yaml", "labels.txt", "tokenizer.json", "README.md", "SHA256SUMS"}
    assert {path.name for path in folder.iterdir()} == files
    assert not any(trace in (folder / "model.onnx").read_bytes() for trace in (b".py", b"/home", b"/tmp", b"site-pack"))
    graph = evaluate.Graph(folder / "model.onnx")
    assert graph.logits([[1], [1] * 5, [1] * 400]).shape == (3, len(LABELS))
