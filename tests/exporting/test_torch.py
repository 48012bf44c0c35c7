"""From a PyTorch module to a served model."""

from pathlib import Path

import numpy as np
import pytest

from millrace.exporting.order import Precision
from tests.exporting.orders import described, exported, loaded, needs_torch, write_function

pytestmark = [needs_torch, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

NETWORK = """
import torch
torch.manual_seed(1)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
return network, torch.zeros(1, 1, 8, 8)
"""
LENGTHS = """
import torch
from torch.export import Dim
class Mean(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(20, 8)
    def forward(self, ids, mask):
        kept = mask.unsqueeze(-1).float()
        states = self.table(ids) * kept
        return {"states": states, "mean": states.sum(1) / kept.sum(1).clamp(min=1)}
batch, tokens = Dim("batch"), Dim("tokens")
ids = torch.randint(0, 20, (2, 6))
shapes = {"ids": {0: batch, 1: tokens}, "mask": {0: batch, 1: tokens}}
return Mean(), {"ids": ids, "mask": torch.ones_like(ids)}, shapes
"""
FRAMES = """
import torch
from torch.export import Dim
class Frames(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(40, 3)
    def forward(self, features):
        return {"logits": self.head(features)}
return Frames(), {"features": torch.zeros(2, 8, 40)}, {"features": {0: Dim("batch"), 1: Dim("frames")}}
"""
SOUND = {"sample_rate": 16_000, "features": "log-mel", "layout": "frames-mels", "log_mel": {"mels": 40}, "blank": 0}
BRANCH = """
import torch
class Branch(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x
return Branch(), torch.ones(2, 3)
"""


def test_a_module_is_served_with_any_number_of_rows(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("".join(f"{digit}\n" for digit in "0123456789"))
    source = write_function(tmp_path, NETWORK)
    made = exported(source, tmp_path / "models", labels=tmp_path / "labels.txt", task="image-classification",
                    keys={"image": {}})  # fmt: skip
    assert {one.given for one in made.parity.comparisons} == {"example", "1", "3", "8"}
    assert made.parity.relative < 1e-5
    engine = loaded(tmp_path / "models")
    assert engine.signature.max_batch_size > 1
    assert "classify" in engine.signature.tasks
    assert b".py" not in (made.folder / "model.onnx").read_bytes()


def test_dynamic_shapes_and_names_are_those_that_are_given(tmp_path: Path) -> None:
    made = exported(write_function(tmp_path, LENGTHS), tmp_path / "models")
    assert {one.given for one in made.parity.comparisons} == {"example", "1 × 5", "3 × 32", "8 × 47"}
    assert {one.output for one in made.parity.comparisons} == {"states", "mean"}
    assert "`ids` (int64 [batch, tokens])" in (made.folder / "README.md").read_text()


def test_files_that_are_given_lie_beside_the_graph_and_frames_have_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("-\n▁one\n▁two\n")
    (tmp_path / "notes.txt").write_text("of the maker")
    source = write_function(tmp_path, FRAMES)
    given = {"labels": tmp_path / "labels.txt", "files": (tmp_path / "notes.txt",), "task": "speech-recognition"}
    made = exported(source, tmp_path / "models", keys={"sound": SOUND}, **given)
    assert described(made)["labels"] == {"logits": "labels.txt"}
    assert (made.folder / "notes.txt").read_text() == "of the maker"
    assert "notes.txt" in (made.folder / "SHA256SUMS").read_text()
    assert "transcribe" in loaded(tmp_path / "models").signature.tasks
    (tmp_path / "model.yaml").write_text("name: mine")
    with pytest.raises(ValueError, match=r"--include .*: model\.yaml is written by the exporter itself"):
        exported(source, tmp_path / "models", version="2", files=(tmp_path / "model.yaml",))


def test_halved_weights_are_half_as_large(tmp_path: Path) -> None:
    source = write_function(tmp_path, NETWORK)
    whole = exported(source, tmp_path / "models")
    half = exported(source, tmp_path / "models", version="2", precision=Precision.FP16)
    assert 0 < half.parity.relative < 1e-2
    sizes = [(made.folder / "model.onnx").stat().st_size for made in (whole, half)]
    assert sizes[1] < 0.7 * sizes[0]
    assert described(half)["graphs"]["cpu"]["precision"] == "fp16"


def test_a_module_that_cannot_be_traced_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"torch\.export cannot trace the module: "):
        exported(write_function(tmp_path, BRANCH), tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("body", ["return 1", "import torch\nreturn torch.nn.Linear(1, 1)"])
def test_a_function_that_answers_something_else_is_refused(tmp_path: Path, body: str) -> None:
    with pytest.raises(ValueError, match=r"must return \(module, example inputs\)"):
        exported(write_function(tmp_path, body), tmp_path / "models")


def test_a_saved_program_is_exported_for_those_who_trust_it(tmp_path: Path) -> None:
    import torch
    from torch.export import Dim

    torch.manual_seed(1)
    example, path = (torch.randn(2, 4),), tmp_path / "net.pt2"
    program = torch.export.export(torch.nn.Linear(4, 3), example, dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(program, path)
    with pytest.raises(ValueError, match="--trust-pickle"):
        exported(path, tmp_path / "models")
    made = exported(path, tmp_path / "models", trust_pickle=True)
    assert made.parity.relative < 1e-5
    assert loaded(tmp_path / "models").signature.max_batch_size > 1


def test_samples_are_compared_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", input=np.ones((4, 1, 8, 8), np.float32))
    source = write_function(tmp_path, NETWORK)
    made = exported(source, tmp_path / "models", samples=tmp_path / "some.npz")
    assert "samples, 4" in {one.given for one in made.parity.comparisons}
