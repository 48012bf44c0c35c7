"""From a version's folder to the next, or to nothing."""

import io
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from millrace.exporting.stages import Stages
from millrace.optimizing import graphs
from millrace.optimizing.measuring import child, process
from millrace.optimizing.measuring.job import Content, Job
from millrace.optimizing.order import Method, Order, Prefer
from millrace.optimizing.rounds import Run
from millrace.optimizing.run import Outcome, optimise
from tests.optimizing.models import ROOT, write, write_data
from tests.worker.rig import Rig

HALF = (Method.FP16,)


def order(folder: Path, *methods: Method, **keys: object) -> Order:
    defaults = {"methods": methods or HALF, "prefer": Prefer.SIZE, "rounds": 1, "seconds": 0.0, "threads": 1}
    return Order(folder=folder, **(defaults | keys))  # type: ignore[arg-type]


def optimised(wanted: Order, run: Run = child.answer) -> Outcome:
    return optimise(wanted, Stages(Console(file=io.StringIO()), quiet=True), run)


@pytest.fixture
async def rig(redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        rig = Rig(redis_url, tmp_path / "models", stack)
        yield rig
        await stack.aclose()
        await rig.redis.aclose()


def left(models: Path) -> list[str]:
    """What there is beside the first version."""
    return sorted(path.name for path in models.rglob("*") if path.is_dir() and path.name not in ("net", "1"))


def test_the_best_becomes_the_next_version(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.npz")
    folder = write(tmp_path / "models", batching={"max_rows": 16})
    (folder / "README.md").write_text("# net\n\nA network.\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    outcome = optimised(order(folder, Method.FP16, Method.INT8_BLOCK, data=data))
    made = folder.parent / "2"
    assert outcome.published == made
    assert outcome.choice.verdicts == {Method.FP16: "within the loss", Method.INT8_BLOCK: "best"}
    assert sorted(path.name for path in made.iterdir()) == ["README.md", "SHA256SUMS", "model.onnx", "model.yaml"]
    described = yaml.safe_load((made / "model.yaml").read_text())
    assert described["graphs"] == {"cpu": {"path": "model.onnx", "precision": "int8"}}
    assert described["batching"] == {"max_rows": 16}
    assert graphs.size(made / "model.onnx") < graphs.size(folder / "model.onnx")
    assert (made / "README.md").read_text().startswith("# net\n\nA network.\n\n## Optimised from version 1: int8-block")
    assert str(tmp_path) not in "".join(path.read_text(errors="ignore") for path in made.iterdir())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert left(tmp_path / "models") == ["2"]


def test_nothing_is_published_beyond_the_loss(tmp_path: Path) -> None:
    folder = write(tmp_path / "models")
    outcome = optimised(order(folder, Method.INT4, max_loss=0.001))
    assert outcome.published is None
    assert outcome.choice.verdicts[Method.INT4].startswith("misses the loss by ")
    assert left(tmp_path / "models") == []


def test_another_device_keeps_its_graph(tmp_path: Path) -> None:
    entry = {"path": "model.onnx", "precision": "fp32"}
    folder = write(tmp_path, graphs={"cpu": entry, "cuda": dict(entry)})
    optimised(order(folder))
    made = folder.parent / "2"
    assert yaml.safe_load((made / "model.yaml").read_text())["graphs"] == {
        "cpu": {"path": "model.fp16.onnx", "precision": "fp16"},
        "cuda": entry,
    }
    assert (made / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_a_graph_alone_gets_a_model_file(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "model.yaml").unlink()
    optimised(order(folder))
    described = yaml.safe_load((folder.parent / "2" / "model.yaml").read_text())
    assert (described["name"], described["graphs"]["cpu"]["precision"]) == ("net", "fp16")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"out": "1"}, "never overwritten"),
        ({"out": "a/b"}, "a version has letters"),
        ({"methods": ()}, "name at least one of graph"),
        ({"data": Path("nowhere.npz")}, "no such file"),
        ({"max_loss": float("nan")}, "--max-loss nan"),
        ({"device": "cuda"}, "names no graph for cuda"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(tmp_path: Path, keys: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        optimised(order(write(tmp_path), **keys))
    assert left(tmp_path) == []


def test_data_that_does_not_fit_ends_it_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "models")
    np.savez(tmp_path / "data.npz", y=np.zeros(3))
    with pytest.raises(ValueError, match=r"the original: data\.npz: no array x"):
        optimised(order(folder, data=tmp_path / "data.npz"))
    assert left(tmp_path / "models") == []


def test_a_folder_is_no_data_for_a_graph_of_tensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder holds images or sounds, which this model does not take"):
        optimised(order(write(tmp_path), data=tmp_path))
    assert left(tmp_path) == []


def test_a_link_is_not_copied(tmp_path: Path) -> None:
    folder = write(tmp_path / "models")
    (folder / "secret").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="secret is a link"):
        optimised(order(folder))
    assert left(tmp_path / "models") == []


@pytest.mark.parametrize("kind", ["make", "judge", "measure"])
def test_an_interruption_leaves_nothing(tmp_path: Path, kind: str) -> None:
    def interrupted(job: Job) -> Content:
        if job.kind == kind and job.method is not None:
            raise KeyboardInterrupt
        return child.answer(job)

    folder = write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        optimised(order(folder), interrupted)
    assert left(tmp_path) == []


def test_a_crash_costs_its_own_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashing(job: Job) -> Content:
        return process.run(job) if job.method is Method.GRAPH else child.answer(job)

    monkeypatch.setattr(process, "CHILD", "tests.optimizing.crashing")
    outcome = optimised(order(write(tmp_path), Method.GRAPH, Method.FP16), crashing)
    assert outcome.choice.verdicts == {
        Method.GRAPH: "its process was ended by SIGKILL, as where memory runs out",
        Method.FP16: "best",
    }


async def test_a_worker_serves_what_was_published(tmp_path: Path, rig: Rig) -> None:
    source = ROOT / "models" / "digits"
    shutil.copytree(source / "1", rig.models / "digits" / "1")
    held_out = source / "held_out.npz"
    outcome = optimised(order(rig.models / "digits" / "1", data=held_out))
    assert outcome.published is not None
    with np.load(held_out) as data:
        x, labels = data["x"][:32].astype(np.float32), data["label"][:32]
    session = graphs.open_session(outcome.published / "model.fp16.onnx", "cpu", 1)
    await rig.start()
    async with rig.client() as client:
        outputs = await client.infer("digits", {"x": x}, model_version="2")
    assert np.array_equal(outputs["label"], labels)
    assert np.array_equal(outputs["probabilities"], session.run(["probabilities"], {"x": x})[0])
