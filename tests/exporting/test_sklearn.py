"""From scikit-learn to a served model."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.exporting import called
from millrace.exporting.run import Different
from tests.cli.running import Up, millrace
from tests.exporting.orders import described, exported, loaded, names, write_function

pytest.importorskip("skl2onnx", reason="needs skl2onnx and scikit-learn")
pytestmark = pytest.mark.filterwarnings("ignore")

CLASSIFIER = """
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
bunch = load_iris()
kinds = bunch.target_names[bunch.target].astype(object)
return make_pipeline(StandardScaler(), LogisticRegression()).fit(bunch.data, kinds), bunch.data
"""
REGRESSOR = """
import numpy as np
from sklearn.ensemble import RandomForestRegressor
x = np.random.default_rng(1).random((50, 3))
return RandomForestRegressor(n_estimators=5, random_state=1).fit(x, x.sum(axis=1))
"""


def iris() -> Any:
    from sklearn.datasets import load_iris

    return load_iris()


def test_a_classifier_becomes_a_folder_with_all_that_it_needs(tmp_path: Path) -> None:
    made = exported(write_function(tmp_path, CLASSIFIER), tmp_path / "models")
    assert names(made.folder) == {"model.onnx", "model.yaml", "labels.txt", "README.md", "SHA256SUMS"}
    assert (made.folder / "labels.txt").read_text().split() == ["setosa", "versicolor", "virginica"]
    file = described(made)
    assert (file["name"], file["task"], file["engine"]) == ("made", "tabular-classification", "batch")
    assert file["labels"] == {"probabilities": "labels.txt"}
    card = (made.folder / "README.md").read_text()
    assert "| Model | StandardScaler → LogisticRegression |" in card
    assert "`x` (float32 [batch, 4])" in card
    assert "| example, 150 | probabilities |" in card
    assert str(tmp_path) not in card
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["made"]


def test_the_worker_takes_the_folder_and_batches_its_rows(tmp_path: Path) -> None:
    exported(write_function(tmp_path, CLASSIFIER), tmp_path / "models")
    signature = loaded(tmp_path / "models").signature
    assert [port.name for port in signature.inputs] == ["x"]
    assert signature.max_batch_size > 1


def test_a_forest_for_numbers_is_compared_and_loaded(tmp_path: Path) -> None:
    made = exported(write_function(tmp_path, REGRESSOR), tmp_path / "models")
    assert described(made)["task"] == "tabular-regression"
    assert made.parity.relative < 1e-5
    assert len(made.parity.comparisons) == 3
    loaded(tmp_path / "models")


def test_what_is_too_far_from_the_original_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(Different, match="is the most"):
        exported(write_function(tmp_path, CLASSIFIER), tmp_path / "models", tolerance=1e-12)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_pickle_is_read_for_those_who_trust_it_alone(tmp_path: Path) -> None:
    from sklearn.tree import DecisionTreeClassifier

    data = iris()
    path = tmp_path / "tree.pkl"
    path.write_bytes(pickle.dumps(DecisionTreeClassifier(random_state=1).fit(data.data, data.target)))
    with pytest.raises(ValueError, match="--trust-pickle"):
        exported(path, tmp_path / "models")
    made = exported(path, tmp_path / "models", trust_pickle=True)
    assert made.parity.agreement == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("from sklearn.svm import SVC\nreturn SVC()", "not a fitted estimator"),
        ("from sklearn.cluster import DBSCAN\nreturn DBSCAN().fit([[0.0, 1.0]])", "skl2onnx cannot convert DBSCAN"),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_left(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        exported(write_function(tmp_path, body), tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_keys_of_model_yaml_are_taken_but_for_the_exporters_own(tmp_path: Path) -> None:
    source = write_function(tmp_path, CLASSIFIER)
    keys = {"batching": {"max_rows": 7}, "licence": "MIT", "description": "Which iris it is."}
    made = exported(source, tmp_path / "models", keys=keys)
    assert described(made)["batching"] == {"max_rows": 7}
    assert "Which iris it is." in (made.folder / "README.md").read_text()
    with pytest.raises(ValueError, match="engine is the exporter's own business"):
        exported(source, tmp_path / "models", version="2", keys={"engine": "stub"})


async def test_a_served_classifier_says_what_the_original_says(tmp_path: Path) -> None:
    source = write_function(tmp_path, CLASSIFIER)
    exported(source, tmp_path / "models", name="iris")
    rows = iris().data[::10].astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    with Up("--models", str(tmp_path / "models"), "--device", "cpu") as up:
        given = ("infer", "-m", "iris", "-i", f"x=@{tmp_path / 'rows.npy'}", "--json", "--address", up.addresses[0])
        status, text, error = await millrace(*given)
    assert (status, error) == (0, "")
    estimator, _ = called.call(source)
    outputs = json.loads(text)["outputs"]
    assert outputs["label"]["values"] == estimator.predict(rows).tolist()
    np.testing.assert_allclose(outputs["probabilities"]["values"], estimator.predict_proba(rows), atol=1e-5)
