"""digits: the split, the training, the export, and the model in the repository."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import yaml

from examples.image import evaluate
from examples.image.evaluate import Graph, Score

SHIPPED = Path(__file__).parents[2] / "models" / "digits" / "1"
SHIPPED_BYTES_LIMIT = 2_000_000
HELD_OUT_BYTES_LIMIT = 40_000


@functools.cache
def shipped_graph() -> Graph:
    return Graph(SHIPPED / "model.onnx")


@functools.cache
def held_out() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    with np.load(SHIPPED.parent / "held_out.npz") as arrays:
        return arrays["x"], arrays["label"]


def shipped_score() -> Score:
    x, label = held_out()
    return evaluate.score(shipped_graph().run(x)[1], label)


def digits(count: int = 200, seed: int = 3) -> Any:
    """Images of scikit-learn's training part; skips the test without the libraries that train."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from examples.image import data

    train = data.read_split().train
    return train.pick(np.random.default_rng(seed).permutation(len(train))[:count])


def test_accuracy_precision_and_recall_follow_from_the_confusion_matrix() -> None:
    score = evaluate.score(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]))
    assert (score.images, score.correct, score.accuracy) == (4, 3, 0.75)
    assert score.confusion[1][:3] == [1, 1, 0]
    assert score.precision[:4] == [0.5, 1.0, 1.0, 0.0]
    assert score.recall[:4] == [1.0, 0.5, 1.0, 0.0]


def test_the_interval_holds_the_accuracy_and_is_open_below_when_nothing_is_wrong() -> None:
    everything = Score(confusion=(36 * np.eye(10, dtype=np.int64)).tolist())
    assert list(everything.interval) == pytest.approx([0.9894, 1], abs=1e-4)
    three_of_four = evaluate.score(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]))
    assert list(three_of_four.interval) == pytest.approx([0.3006, 0.9544], abs=1e-4)


def test_the_shipped_files_are_small() -> None:
    assert (SHIPPED / "model.onnx").stat().st_size <= SHIPPED_BYTES_LIMIT
    assert (SHIPPED.parent / "held_out.npz").stat().st_size < HELD_OUT_BYTES_LIMIT


def test_the_held_out_images_are_a_fifth_with_every_digit() -> None:
    x, label = held_out()
    assert x.shape == (360, 1, 8, 8)
    assert (str(x.dtype), x.min(), x.max()) == ("uint8", 0, 16)
    assert label.shape == (360,)
    assert np.bincount(label).min() >= 34


def test_the_description_names_the_graph_that_is_there() -> None:
    description = yaml.safe_load((SHIPPED / "model.yaml").read_text())
    assert (description["name"], description["engine"]) == ("digits", "batch")
    assert {graph["path"] for graph in description["graphs"].values()} == {"model.onnx"}


def test_the_shipped_graph_has_a_batch_axis_on_every_input_and_output() -> None:
    session = shipped_graph().session
    values = [*session.get_inputs(), *session.get_outputs()]
    assert [(value.name, value.type, value.shape) for value in values] == [
        ("x", "tensor(float)", ["batch", 1, 8, 8]),
        ("probabilities", "tensor(float)", ["batch", 10]),
        ("label", "tensor(int64)", ["batch"]),
    ]


def test_the_shipped_graph_carries_no_trace_of_the_machine_that_made_it() -> None:
    model: Any = onnx.load(SHIPPED / "model.onnx")
    parts = [model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer]
    assert not any(part.doc_string or part.metadata_props for part in parts)
    assert not any(
        trace in (SHIPPED / "model.onnx").read_bytes() for trace in (b".py", b"/home", b"/tmp", b"site-pack")
    )
    assert model.ir_version <= 10
    assert [17 <= entry.version <= 21 for entry in model.opset_import] == [True]


def test_the_shipped_graph_reads_the_held_out_digits() -> None:
    assert shipped_score().accuracy >= 0.98


def test_probabilities_sum_to_one_and_the_label_is_the_most_probable() -> None:
    probabilities, label = shipped_graph().run(held_out()[0])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(axis=1), label)


def test_an_image_alone_has_the_probabilities_that_it_has_in_a_batch() -> None:
    assert shipped_graph().drift(held_out()[0]) < 1e-5


def test_the_card_says_what_is_measured() -> None:
    card, score = (SHIPPED.parent / "README.md").read_text(), shipped_score()
    row = re.search(r"digits \(shipped\) \| ([\d.]+%) \| (\d+) of (\d+)", card)
    assert row is not None
    assert row.groups() == (f"{score.accuracy:.2%}", str(score.correct), str(score.images))
    for digit, counts in enumerate(score.confusion):
        assert f"| **{digit}** | {' | '.join(str(count or '') for count in counts)} |" in card


def test_the_parts_are_disjoint_and_a_fifth_is_held_out() -> None:
    pytest.importorskip("sklearn")
    from examples.image import data

    label = data.read_digits().label
    train, validation, others = data.split_rows(label)
    assert sorted([*train, *validation, *others]) == list(range(len(label)))
    assert (len(others), len(validation)) == (360, 144)
    shares = np.bincount(label[others]) / np.bincount(label)
    assert abs(shares - 0.2).max() < 0.01


def test_the_held_out_images_in_the_repository_are_those_of_the_split() -> None:
    pytest.importorskip("sklearn")
    from examples.image import data

    x, label = held_out()
    split = data.read_split()
    assert np.array_equal(split.held_out.x, x)
    assert np.array_equal(split.held_out.label, label)


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from examples.image.train import Recipe

    recipe = Recipe(steps=110, warmup_steps=10)
    assert [recipe.rate(step) for step in (0, 9, 10)] == [0.1, 1.0, 1.0]
    assert recipe.rate(60) == pytest.approx(0.5)
    assert recipe.rate(110) == pytest.approx(0)


def test_a_batch_depends_on_seed_and_step_alone_and_stays_grey() -> None:
    images = digits()
    from examples.image.train import Recipe, batch

    recipe = Recipe(batch=16)
    (x, label), (again, _), (other, _) = (batch(images, recipe, step) for step in (3, 3, 4))
    assert (tuple(x.shape), tuple(label.shape)) == ((16, 1, 8, 8), (16,))
    assert x.tolist() == again.tolist()
    assert x.tolist() != other.tolist()
    assert 0 <= x.min() <= x.max() <= 16


def test_a_short_run_learns_something(tmp_path: Path) -> None:
    images = digits(400)
    from examples.image import train

    recipe = train.Recipe(steps=60, batch=32, warmup_steps=5)
    network = train.train(images, images, recipe, tmp_path, resume=False)
    _, accuracy = train.validate(network, images)
    assert accuracy > 0.7


def test_a_run_that_is_killed_and_resumed_gives_the_weights_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, kill_at = digits(), 5
    import torch

    from examples.image import train

    recipe = train.Recipe(steps=9, batch=16, warmup_steps=3, curve_every=3)
    whole = train.train(images, images, recipe, tmp_path / "whole", resume=False)

    def killed(given: Any, plan: train.Recipe, step: int) -> Any:
        if step == kill_at:
            raise KeyboardInterrupt
        return draw(given, plan, step)

    draw = train.batch
    with monkeypatch.context() as patch:
        patch.setattr(train, "batch", killed)
        with pytest.raises(KeyboardInterrupt):
            train.train(images, images, recipe, tmp_path / "killed", resume=False, save_every_s=0)
    resumed = train.train(images, images, recipe, tmp_path / "killed", resume=True)
    expected, found = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_run_is_not_resumed_without_a_checkpoint_or_with_another_recipe(tmp_path: Path) -> None:
    images = digits()
    from examples.image import train

    recipe = train.Recipe(steps=1, batch=8)
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train.train(images, images, recipe, tmp_path, resume=True)
    train.train(images, images, recipe, tmp_path, resume=False)
    with pytest.raises(RuntimeError, match="another recipe"):
        train.train(images, images, train.Recipe(steps=2, batch=8), tmp_path, resume=True)


def test_a_graph_that_is_not_equal_to_pytorch_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = digits(8)
    from examples.image import export
    from examples.image.model import Network

    shipped = onnx.load(SHIPPED / "model.onnx")
    monkeypatch.setattr(export, "build", lambda _: shipped)
    with pytest.raises(RuntimeError, match="from PyTorch's"):
        export.ship(Network(0.0, 1.0), images.x, tmp_path / "1")
    assert list((tmp_path / "1").iterdir()) == []


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_whole_path_makes_a_folder_like_the_shipped_one(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    pytest.importorskip("onnxscript")
    from examples.image import __main__ as command

    out = tmp_path / "digits" / "1"
    command.main(["--steps", "20", "--work", str(tmp_path / "work"), "--out", str(out)])
    assert {path.name for path in out.iterdir()} == {path.name for path in SHIPPED.iterdir()}
    assert (out / "model.yaml").read_text() == (SHIPPED / "model.yaml").read_text()
    assert (out.parent / "held_out.npz").exists()
    assert "| digits (shipped) |" in (out.parent / "README.md").read_text()
    assert Graph(out / "model.onnx").run(held_out()[0][:3])[0].shape == (3, 10)
