"""What docs/models.md says of model.yaml is so."""

from pathlib import Path

import pytest

from services.worker import repository
from services.worker.repository.model_file import Batching, DefaultFields, Frozen, GraphEntry, ModelFile
from services.worker.repository.versions import Policy
from services.worker.tasks.front_end import SoundFields
from services.worker.tasks.image import ImageFields
from services.worker.tasks.labels import ClassFields
from services.worker.tasks.log_mel import LogMelFields
from services.worker.tasks.pooling import EmbeddingFields
from services.worker.tasks.text import TextFields
from tests.stub_models import write_stub

DOCUMENT = Path("docs/models.md").read_text()


FORMS = ("`{key}`", ".{key}`", "{{{key}: ")
TASKS = (TextFields, EmbeddingFields, ClassFields, ImageFields, SoundFields, LogMelFields)


@pytest.mark.parametrize("part", [ModelFile, Batching, DefaultFields, GraphEntry, Policy, *TASKS])
def test_every_key_is_explained(part: type[Frozen]) -> None:
    missing = [key for key in part.model_fields if not any(form.format(key=key) in DOCUMENT for form in FORMS)]
    assert not missing


def test_the_defaults_are_as_they_are_told() -> None:
    told = dict(
        line.strip("| ").split(" | ")[:2]
        for line in DOCUMENT.split("### Tasks")[0].splitlines()
        if line.startswith("| `")
    )
    fields = ModelFile.model_fields | Batching.model_fields
    numbers = {key.strip("`"): int(value) for key, value in told.items() if value.isdigit()}
    assert len(numbers) > 5
    assert numbers == {key: fields[key].default for key in numbers if key != "padding"} | {"padding": 0}


def test_the_examples_are_taken(tmp_path: Path) -> None:
    """Each is what the repository reads: a policy, or warm-up requests."""
    examples = [part.split("```")[0] for part in DOCUMENT.split("```yaml\n")[1:]]
    assert len(examples) == 4
    for number, example in enumerate(examples):
        folder = tmp_path / str(number)
        version = write_stub(folder)
        write_stub(folder, version="rc1")
        write_stub(folder, version="3")
        target = version.parent if example.startswith("versions") else version
        file = target / "model.yaml"
        file.write_text((file.read_text() if file.exists() else "") + example)
        assert repository.scan(folder)[1] == []
