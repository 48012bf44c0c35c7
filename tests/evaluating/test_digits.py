"""models/digits through real processes: the service's figures are those of the graph alone, whatever is killed."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import typer
from onnx import numpy_helper
from sklearn import metrics
from typer.testing import CliRunner

from millrace import AsyncClient
from millrace.cli.evaluate import evaluate as command
from millrace.evaluating.asking import Journal, Progress, Target
from millrace.evaluating.asking.running import Watch
from millrace.evaluating.data import Dataset
from millrace.evaluating.evaluation import Plan, evaluate, prepare
from millrace.evaluating.result import read_result
from tests.processes import Service, Valkey, free_port

MODELS = Path(__file__).parent.parent.parent / "models"
HELD_OUT = MODELS / "digits" / "held_out.npz"
NOISE = 0.35

app = typer.Typer()
app.command()(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    address: str
    frontend: Service
    models: Path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Version 1 is the model; version 2 has noise in its weights."""
    models, address = tmp_path_factory.mktemp("models"), f"127.0.0.1:{free_port()}"
    for version in ("1", "2"):
        shutil.copytree(MODELS / "digits" / "1", models / "digits" / version)
    spoil(models / "digits" / "2" / "model.onnx")
    with Valkey() as valkey:
        environment = {"MILLRACE_REDIS_URL": valkey.url, "MILLRACE_MODELS": str(models), "MILLRACE_THREADS": "1"}
        addresses = {"MILLRACE_GRPC_ADDRESS": address, "MILLRACE_HTTP_ADDRESS": f"127.0.0.1:{free_port()}"}
        with (
            Service("services.frontend", environment | addresses) as frontend,
            Service("services.worker", environment),
        ):
            yield Fleet(address=address, frontend=frontend, models=models)


def spoil(path: Path) -> None:
    model, generator = onnx.load(path), np.random.default_rng(1)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.ndim > 1:
            noise = generator.normal(0, NOISE * values.std(), values.shape)
            weight.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), weight.name))
    onnx.save(model, path)


def offline(path: Path) -> np.ndarray:
    """Probabilities [360, 10] of the held-out digits, by ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(["probabilities"], {"x": np.load(HELD_OUT)["x"].astype(np.float32)})
    return np.asarray(outputs[0])


def millrace(*arguments: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["-m", "digits", *arguments])
    return found.exit_code, found.stdout, found.stderr


async def test_figures_are_those_of_the_graph_alone_though_a_frontend_dies(fleet: Fleet, tmp_path: Path) -> None:
    killed = threading.Event()

    @contextmanager
    def watching(target: Target, dataset: Dataset, journal: Journal) -> Iterator[Watch]:
        def watch(step: Progress) -> None:
            if len(journal.outcomes) == 100 and not killed.is_set():
                killed.set()
                fleet.frontend.kill()
                fleet.frontend.launch()

        yield watch

    async with AsyncClient(fleet.address, retry_s=30) as client:
        plan = Plan(model="digits", version="2", against="1", data=HELD_OUT, resamples=100)
        result = await evaluate(client, await prepare(client, plan), tmp_path, watching)
    assert killed.is_set()
    labels = np.load(HELD_OUT)["label"]
    for version, system in (("2", result.system), ("1", result.against)):
        assert system is not None
        assert (system.answered, system.failed, system.version) == (360, 0, version)
        assert len(system.digest) == 64
        scores = offline(fleet.models / "digits" / version / "model.onnx")
        given = {one.name: one.value for one in system.measures}
        assert given["accuracy"] == metrics.accuracy_score(labels, scores.argmax(1))
        assert given["f1_macro"] == pytest.approx(metrics.f1_score(labels, scores.argmax(1), average="macro"))
        assert given["auc_macro"] == pytest.approx(
            metrics.roc_auc_score(labels, scores.astype(float), multi_class="ovr"), abs=1e-6
        )
        assert np.array_equal(system.confusion, metrics.confusion_matrix(labels, scores.argmax(1)))
    assert result.against is not None
    assert result.against.measures[0].value == 1.0
    assert result.comparison is not None
    assert result.comparison.verdict == "worse"


def test_the_command_writes_a_result_and_a_page_and_fails_a_build(fleet: Fleet, tmp_path: Path) -> None:
    usual = ("--data", str(HELD_OUT), "--address", fleet.address, "--out", str(tmp_path), "--resamples", "100")
    status, said, errors = millrace(*usual, "--model-version", "1", "--fail-under", "accuracy=1", "--limit", "40")
    assert status == 0, errors
    assert "digits/1 on held_out.npz: 40 of 40 examples answered" in said
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert read_result(tmp_path / "result.json").system.model == "digits"
    status, said, errors = millrace(
        *usual, "--model-version", "1", "--limit", "41", "--fail-over", "accuracy=0.9", "--json"
    )
    assert status == 4
    assert "40 of 41 were answered before" in errors
    assert "--fail-over accuracy=0.9: it is 1" in errors
    assert json.loads(said)["schema"] == "millrace.evaluation/1"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--data", "nowhere.jsonl"], 2, "nowhere.jsonl: No such file"),
        (["--data", str(HELD_OUT), "--task", "guess"], 2, "--task: 'guess' is none of classify"),
        (["--data", str(HELD_OUT), "--fail-if-worse"], 2, "--fail-if-worse: needs --against"),
        (["--data", str(HELD_OUT), "--fail-under", "wer=1"], 2, "there is no measure 'wer'; infer has accuracy"),
        (["--data", str(HELD_OUT), "--against", "9"], 1, "digits has no version '9'; it has:"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_call(
    arguments: list[str], status: int, said: str, fleet: Fleet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found, _, errors = millrace(*arguments, "--address", fleet.address, "--out", str(out))
    assert found == status
    assert said in " ".join(errors.split())
    assert not out.exists()


def test_where_no_service_answers_it_says_what_to_do(tmp_path: Path) -> None:
    status, _, errors = millrace("--data", str(HELD_OUT), "--address", f"127.0.0.1:{free_port()}")
    assert status == 1
    assert "Is Millrace running there?" in errors
